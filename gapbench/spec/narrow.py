"""The width at which a dense network is no larger than a sparse network of full width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gapbench.errors import UserError
from gapbench.plan.phases import UNSTRUCTURED
from gapbench.spec.models import WIDTH, Proxy, counts_of_trial, layers_of_trial, proxy

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)


def narrowed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a dense trial of the size of the sparse trial with `settings`.

    Args:
        settings: settings of a trial, without its plan.

    Raises:
        UserError: if the task has no width, if the distribution depends on weights, or if even a
            network of width 1 is too large.
    """
    name, options = settings["task"], settings["options"]
    if WIDTH not in settings["task_options"]:
        raise UserError(f"method: task {name} has no option {WIDTH}: its network has one width")
    full = options["full_width"] or settings["task_options"][WIDTH]
    whole = _at(settings, full)
    words = ("first_layer", "distribution", "sparsity", "pattern")
    counts = counts_of_trial(whole, *(settings[word] for word in words))
    if counts is None:
        raise UserError(
            f"distribution: under {settings['distribution']} the size of the sparse network is "
            "known only after training: choose uniform or erk"
        )
    flops = options["match"] == "inference_flops"
    kept = counts.exact_densities()
    if flops:
        size = whole.cost.total - sum(whole.cost.macs[n] * (1 - d) for n, d in kept.items())
    else:
        numel = {x.name: x.numel for x in layers_of_trial(whole, settings["first_layer"])}
        size = whole.parameters - sum(numel.values()) + sum(counts().values())
    width = _widest(settings, full, size, flops)
    return {
        **settings,
        "task_options": {**settings["task_options"], WIDTH: width},
        "options": {**options, "full_width": full},
        "as_small_as": settings["sparsity"],
        "sparsity": 0.0,
        "distribution": "dense",
        "first_layer": "sparse",
        "pattern": UNSTRUCTURED,
    }


def relative_cost(settings: Mapping[str, Any]) -> float:
    """Return the forward cost of a trial's dense network over the full-width network's cost."""
    if settings.get("as_small_as") is None:
        return 1.0
    own = proxy(settings["task"], settings["task_options"])
    return own.cost.total / whole_of(settings).cost.total


def whole_of(settings: Mapping[str, Any]) -> Proxy:
    """Return the full-width network of a trial; without narrowing, the trial's own network."""
    if settings.get("as_small_as") is None:
        return proxy(settings["task"], settings["task_options"])
    return _at(settings, settings["options"]["full_width"])


def _widest(settings: dict[str, Any], full: int, size: float, flops: bool) -> int:
    step = _step(settings, full)
    low, high = 0, full // step  # in steps; `low` fits, or is no width
    while high > low:
        middle = (low + high + 1) // 2
        model = _at(settings, middle * step)
        if (model.cost.total if flops else model.parameters) <= size:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise UserError(
            f"sparsity: {settings['sparsity']} is out of reach: a dense network of width {step} "
            "is larger"
        )
    return low * step


def _step(settings: dict[str, Any], full: int) -> int:
    """Return the number of which widths are multiples, since attention heads share them equally."""
    for step in STEPS:
        if full % step:
            continue
        try:
            _at(settings, full - step if full > step else full)
        except UserError:
            continue
        return step
    return full


def _at(settings: Mapping[str, Any], width: int) -> Proxy:
    return proxy(settings["task"], {**settings["task_options"], WIDTH: width})

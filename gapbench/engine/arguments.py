"""Checks of `Sparsifier`'s arguments, and of the states that it loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from gapbench.base.identity import digest
from gapbench.engine.choice import densities_of, require_usable
from gapbench.engine.targets import Targets
from gapbench.errors import UserError
from gapbench.methods.method import methods
from gapbench.methods.method import plan as make_plan
from gapbench.plan.document import identity_of
from gapbench.plan.phases import UNSTRUCTURED, Layers, Plan
from gapbench.sparsity.distributions import EMERGENT
from gapbench.sparsity.layers import layers_of

Distribution = (
    str | Mapping[str, float] | Callable[[Mapping[str, tuple[int, ...]], Any], Mapping[str, float]]
)


def checked_layers(
    model: nn.Module, optimizer: torch.optim.Optimizer, names: Sequence[str]
) -> Layers:
    """Return the named parameters as layers.

    Raises:
        UserError: naming a parameter that is unknown, is given twice, is a vector, or is not among
            the optimiser's parameters.
    """
    own = dict(model.named_parameters())
    for name in names:
        require_usable(name, own[name])
    layers = layers_of(model, names)
    moved = {id(param) for group in optimizer.param_groups for param in group["params"]}
    for layer in layers:
        if id(own[layer.name]) not in moved:
            raise UserError(
                f"optimizer: it does not have {layer.name}: build the optimiser from this model's "
                "parameters, or leave the layer out of layers"
            )
    return layers


def check_numbers(sparsity: object, steps_per_epoch: object, epochs: object) -> None:
    """Check that the numeric arguments are numbers; numpy's numbers count.

    Raises:
        UserError: naming the argument.
    """
    if sparsity is not None and (not isinstance(sparsity, Real) or isinstance(sparsity, bool)):
        raise UserError(f"sparsity: {sparsity!r} is not possible: give a number in [0, 1)")
    counts = {"steps_per_epoch": steps_per_epoch, "epochs": epochs}
    for name, count in counts.items():
        whole = isinstance(count, Integral) and not isinstance(count, bool) and int(count) >= 1
        if not whole and not (name == "epochs" and count is None):
            raise UserError(f"{name}: {count!r} is not possible: give a whole number, at least 1")


def plan_of(
    method: str | Plan, layers: Layers, epochs: int | None, seed: int, options: Mapping[str, Any]
) -> Plan:
    """Return the plan that a method makes, or the plan that is given instead of a method.

    Raises:
        UserError: if a method has no budget of epochs, or a plan names an unknown layer or comes
            with options.
    """
    if isinstance(method, str):
        if epochs is None:
            raise UserError(f"epochs: method {method} needs the budget in epochs")
        return make_plan(method, layers, epochs, seed=seed, **options)
    if not isinstance(method, Plan):
        raise UserError(
            f"method: {method!r} is neither a registered name nor a Plan: "
            "`gapbench list methods` lists the names"
        )
    if options:
        raise UserError(f"{next(iter(options))}: a plan has no options: leave the option out")
    if epochs is not None and epochs != method.epochs:
        raise UserError(
            f"epochs: the plan has {method.epochs} epochs, not {epochs}: leave epochs out"
        )
    _require_known(method, layers)
    return method


def require_sparse_end(method: str | Plan, plan: Plan, sparsity: float) -> None:
    """Check that a plan for a sparse model ends sparse; only the method `dense` may end dense.

    Raises:
        UserError: if the plan ends dense.
    """
    if sparsity > 0 and isinstance(method, str) and methods[method].narrow:
        raise UserError(
            f"method: {method} narrows the network of an ablation's task: build the narrow model "
            "yourself, and train it without a Sparsifier"
        )
    if method != "dense":
        plan.require_sparse_end(sparsity)


def require_changes(plan: Plan, steps_per_epoch: int) -> None:
    """Check that every update of a plan falls due at least once.

    Raises:
        UserError: naming the first update that never falls due, so that masks would not move.
    """
    for segment in plan.segments:
        update, steps = segment.phase.update, segment.phase.epochs * steps_per_epoch
        if update is not None and next(iter(update.dues(steps)), None) is None:
            raise UserError(
                f"every: no update falls into the {steps} steps of phase {segment.phase.label}, "
                f"so masks never change: {update.every} is too large, or training is too short"
            )


def _require_known(method: Plan, layers: Layers) -> None:
    grown = frozenset[str]().union(*(segment.phase.grow for segment in method.segments))
    foreign = sorted(grown - {layer.name for layer in layers})
    if foreign:
        raise UserError(f"method: the plan grows {foreign[0]}, which is not one of the layers")


def spread_of(
    plan: Plan,
    layers: Layers,
    sparsity: float | None,
    distribution: Distribution,
    chosen: object,
) -> tuple[float, str | dict[str, float]]:
    """Return the overall sparsity, and either the distribution's name or every layer's density.

    Raises:
        UserError: if neither a sparsity nor densities are given, if the densities do not fit the
            layers, or if a sparsity or a distribution is given for a plan that learns them.
    """
    if distribution == EMERGENT and plan.budget != EMERGENT:
        raise UserError(
            f"distribution: this method learns no distribution: give uniform or erk, not {EMERGENT}"
        )
    if plan.budget == EMERGENT:
        if isinstance(chosen, Mapping) or distribution not in ("uniform", EMERGENT):
            raise UserError(
                "distribution: this method learns the density of each layer: leave distribution out"
            )
        if sparsity is not None and distribution != EMERGENT:
            raise UserError(
                "sparsity: this method learns the sparsity: leave sparsity out, and see densities()"
            )
        return sparsity or 0.0, EMERGENT
    names = [layer.name for layer in layers]
    shapes = {layer.name: layer.shape for layer in layers}
    given = chosen if isinstance(chosen, Mapping) else distribution
    if isinstance(given, str):
        if sparsity is None:
            raise UserError("sparsity: give a number, or the density of every layer")
        return sparsity, given
    if callable(given):
        given = given(shapes, sparsity)
    densities = densities_of(names, given)
    kept = sum(densities[layer.name] * layer.numel for layer in layers)
    return 1 - kept / sum(layer.numel for layer in layers), densities


def fingerprint(plan: Plan, targets: Targets) -> str:
    """Return a hash that is equal for equal plans and targets, in every process."""
    layers = [(layer.name, layer.shape) for layer in targets.layers.values()]
    whole = [identity_of(plan), targets.sparsity, targets.distribution, layers]
    pattern = targets.pattern.text
    return digest(whole if pattern == UNSTRUCTURED else [*whole, pattern])


def require_own_state(
    state: Any, layers: Iterable[str], of: object, counted_by: tuple[int, int]
) -> None:
    """Check that a Sparsifier's state is its own.

    Args:
        state: that is to be loaded.
        layers: names of the prunable parameters.
        of: the fingerprint of plan and targets.
        counted_by: steps of an epoch, and the seed.

    Raises:
        UserError: if it is no state, or belongs to other layers, another plan or sparsity.
    """
    if not isinstance(state, Mapping) or not {"of", "ledger", "masks"} <= state.keys():
        raise UserError("sparsifier state: empty, or not from state_dict()")
    foreign = sorted(set(state["ledger"]["uses"]) ^ set(layers))
    if foreign:
        raise UserError(f"sparsifier state: {foreign[0]} is in the state or in the model only")
    if state["of"] != of:
        raise UserError("sparsifier state: it belongs to another plan, sparsity or distribution")
    steps, seed = state.get("counted_by", counted_by)
    if (steps, seed) != counted_by:
        raise UserError(
            f"sparsifier state: it has {steps} steps_per_epoch and seed {seed}, and this "
            f"Sparsifier has {counted_by[0]} and {counted_by[1]}"
        )

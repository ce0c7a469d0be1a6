"""What `Sparsifier` can work with: its arguments, and states of the same plan and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from gapbench.base.identity import digest
from gapbench.engine.targets import Targets
from gapbench.errors import UserError
from gapbench.methods.method import plan as make_plan
from gapbench.plan.document import identity_of
from gapbench.plan.phases import Layers, Plan
from gapbench.sparsity.layers import layers_of


def checked_layers(
    model: nn.Module, optimizer: torch.optim.Optimizer, names: Sequence[str]
) -> Layers:
    """Return the named parameters as layers.

    Raises:
        UserError: naming one that is unknown, given twice, a vector, or not the optimiser's.
    """
    layers = layers_of(model, names)
    own = dict(model.named_parameters())
    moved = {id(param) for group in optimizer.param_groups for param in group["params"]}
    for index, layer in enumerate(layers):
        if layer.name in names[:index]:
            raise UserError(f"layers: {layer.name} is given twice")
        if len(layer.shape) < 2:
            raise UserError(f"layers: {layer.name} is a vector: give weights of 2 or more axes")
        if id(own[layer.name]) not in moved:
            raise UserError(
                f"optimizer: it does not have {layer.name}: "
                "make it of this model's parameters, or name in layers those that it has"
            )
    return layers


def check_numbers(sparsity: object, steps_per_epoch: object, epochs: object) -> None:
    """Check what has to be a number.

    Raises:
        UserError: naming the argument.
    """
    if not isinstance(sparsity, Real) or isinstance(sparsity, bool):
        raise UserError(f"sparsity: {sparsity!r} is not possible: give a number in [0, 1)")
    counts = {"steps_per_epoch": steps_per_epoch, "epochs": epochs}
    for name, count in counts.items():
        whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
        if not whole and not (name == "epochs" and count is None):
            raise UserError(f"{name}: {count!r} is not possible: give a whole number, at least 1")


def plan_of(
    method: str | Plan, layers: Layers, epochs: int | None, seed: int, options: Mapping[str, Any]
) -> Plan:
    """Return the plan of a method, or the one that was given in its place.

    Raises:
        UserError: if a method comes without its budget, or a plan names a layer that is unknown or
            comes with options.
    """
    if isinstance(method, str):
        if epochs is None:
            raise UserError(f"epochs: method {method} needs the budget in epochs")
        return make_plan(method, layers, epochs, seed=seed, **options)
    if options:
        raise UserError(f"{next(iter(options))}: a plan has no options")
    grown = frozenset[str]().union(*(segment.phase.grow for segment in method.segments))
    foreign = sorted(grown - {layer.name for layer in layers})
    if foreign:
        raise UserError(f"method: the plan grows {foreign[0]}, which is none of the layers")
    return method


def fingerprint(plan: Plan, targets: Targets) -> str:
    """Return a hash that is equal for equal plans and targets, in every process."""
    layers = [(layer.name, layer.shape) for layer in targets.layers.values()]
    return digest([identity_of(plan), targets.sparsity, targets.distribution, layers])

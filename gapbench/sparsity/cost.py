"""Multiply-accumulates of a model, by parameter, and what a plan costs before it is run.

Norms, losses and mask work are not counted. A forward pass costs f, the backward pass 2f.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from gapbench.methods.plan import DropGrow, Gradual, Layers, Plan, Segment
from gapbench.sparsity.masks import zeros_of


@dataclass(frozen=True)
class ForwardCost:
    """Multiply-accumulates (MACs) of one forward pass of one example.

    Attributes:
        macs: MACs of every weight that takes part in a convolution or matrix product.
        other: MACs of products of activations, such as attention scores.
        outputs: elements that the convolutions and products with weights write.
    """

    macs: dict[str, int]
    other: int
    outputs: int

    @property
    def total(self) -> int:
        """All MACs of the dense model."""
        return sum(self.macs.values()) + self.other


def forward_macs(model: nn.Module, inputs: Sequence[Any]) -> ForwardCost:
    """Count the MACs of `model(*inputs)` by parameter, without touching the model.

    A copy on the meta device is run in evaluation mode under a dispatch mode that looks up the
    storage of every operand. So packed and functional attention weights are counted where module
    hooks would miss them, and no hook, statistic or generator of the model is touched.

    Args:
        model: on any device, meta included.
        inputs: positional arguments of one forward pass of one example.
    """
    twin = _meta_twin(model)
    arguments = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), tuple(inputs))
    names = {_storage(parameter): name for name, parameter in twin.named_parameters()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(
        False
    )  # its fused kernel would hide the products
    try:
        with torch.no_grad(), _Counter(names) as counter:
            twin(*arguments)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return ForwardCost(counter.macs, counter.other, counter.outputs)


def inference_ratio(cost: ForwardCost, densities: Mapping[str, float]) -> float:
    """Return sparse over dense MACs of one forward pass; layers not named are dense."""
    saved = sum(
        cost.macs.get(name, 0) * (1 - density) for name, density in densities.items()
    )
    return 1 - saved / cost.total


def published_ratio(cost: ForwardCost, densities: Mapping[str, float]) -> float:
    """Return the ratio as RigL's published factors count it.

    They count two operations a MAC, and one addition for every output element, which pruning does
    not save.
    """
    dense = 2 * cost.total + cost.outputs
    return (2 * cost.total * inference_ratio(cost, densities) + cost.outputs) / dense


def rigl_factor(sparse: float, every: int = 100) -> float:
    """Return RigL's training cost over dense training (RigL, appendix H).

    An update in place of every (`every` + 1)-th step costs a sparse forward and backward pass and
    the dense weight gradient: (3 f_s dT + 2 f_s + f_D) / ((dT + 1) 3 f_D).

    Args:
        sparse: f_s / f_D, the sparse model's forward cost over the dense one's.
        every: dT.
    """
    return (3 * sparse * every + 2 * sparse + 1) / (3 * (every + 1))


@dataclass(frozen=True)
class PlanCost:
    """What a plan costs.

    Attributes:
        dense_epochs: training cost in epochs of dense training.
        peak_density: largest density of the prunable weights in any step.
        mean_density: their density averaged over the steps.
    """

    dense_epochs: float
    peak_density: float
    mean_density: float


def plan_cost(
    plan: Plan,
    layers: Layers,
    densities: Mapping[str, float],
    cost: ForwardCost,
    steps_per_epoch: int,
) -> PlanCost:
    """Return the exact cost of a plan whose final densities follow from shapes.

    Args:
        plan: the plan.
        layers: the prunable layers.
        densities: final density of every layer.
        cost: of the dense model.
        steps_per_epoch: optimiser steps of one epoch.
    """
    numel = {layer.name: layer.numel for layer in layers}
    uses = dict.fromkeys(numel, 0)
    steps = active_steps = peak = 0
    for segment in plan.segments:
        for stretch in _stretches(segment, numel, densities, steps_per_epoch):
            for name, active in stretch.active.items():
                uses[name] += 3 * active * stretch.steps
                uses[name] += (2 * active + numel[name]) * stretch.dense_gradients
            total = sum(stretch.active.values())
            count = stretch.steps + stretch.dense_gradients
            steps += count
            active_steps += total * count
            peak = max(peak, total if count else 0)
    weights = sum(numel.values())
    sparse = sum(cost.macs[name] * count / numel[name] for name, count in uses.items())
    rest = cost.total - sum(cost.macs[name] for name in uses)
    dense_steps = (sparse / 3 + rest * steps) / cost.total
    return PlanCost(
        dense_steps / steps_per_epoch, peak / weights, active_steps / steps / weights
    )


@dataclass(frozen=True)
class _Stretch:
    """Steps, and updates by the dense gradient, with the same active weights."""

    active: dict[str, int]
    steps: int
    dense_gradients: int = 0


def _stretches(
    segment: Segment,
    numel: Mapping[str, int],
    densities: Mapping[str, float],
    per_epoch: int,
) -> Iterator[_Stretch]:
    steps = segment.phase.epochs * per_epoch
    update = segment.phase.update
    if isinstance(update, Gradual):
        yield from _gradual_stretches(update, steps, numel, densities)
        return
    active = {
        name: count
        if name in segment.phase.grow
        else count - zeros_of(count, densities[name])
        for name, count in numel.items()
    }
    updates = 0
    if isinstance(update, DropGrow) and update.score == "gradient":
        updates = sum(update.due(step, steps) for step in range(0, steps, update.every))
    yield _Stretch(active, steps - updates, updates)


def _gradual_stretches(
    update: Gradual,
    steps: int,
    numel: Mapping[str, int],
    densities: Mapping[str, float],
) -> Iterator[_Stretch]:
    progress, since = 0.0, 0
    for step in [*(s for s in range(steps) if update.due(s, steps)), steps - 1]:
        active = {
            name: count - zeros_of(count, 1 - (1 - densities[name]) * progress)
            for name, count in numel.items()
        }
        yield _Stretch(
            active, step + 1 - since
        )  # a prune follows the optimiser step it is due at
        progress, since = update.progress(step, steps), step + 1


class _Counter(TorchDispatchMode):
    """Adds up the MACs of every product that is run under it."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.macs: dict[str, int] = {}
        self.other = 0
        self.outputs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            return out
        macs = int(formula(*args, **kwargs, out_val=out)) // 2  # two operations a MAC
        operands = (
            _storage(leaf) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)
        )
        owners = [self.names[storage] for storage in operands if storage in self.names]
        weights = [name for name in owners if not name.endswith("bias")]
        if not weights:
            self.other += macs
            return out
        self.macs[weights[0]] = self.macs.get(weights[0], 0) + macs
        self.outputs += out.numel()
        return out


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _meta_twin(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device in evaluation mode, without hooks."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        meta = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(meta, parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin.eval()

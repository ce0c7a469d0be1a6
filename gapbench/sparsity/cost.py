"""The cost of a model by parameter, and the cost of a plan before the run.

Costs are exact multiply-accumulates (MACs) of convolutions and matrix products. Norms, biases,
losses and mask operations are not counted. A forward pass costs f, and a backward pass costs 2f.

RigL's published ratios count slightly more operations: see `published_ratio`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gapbench.plan.phases import Plan, Segment
from gapbench.plan.update import Stretch
from gapbench.sparsity.counts import Counts
from gapbench.sparsity.macs import ForwardCost, forward_macs

__all__ = [
    "ForwardCost",
    "PlanCost",
    "forward_macs",
    "inference_ratio",
    "plan_cost",
    "published_ratio",
    "rigl_factor",
]


def inference_ratio(cost: ForwardCost, densities: Mapping[str, float]) -> float:
    """Return sparse over dense MACs of one forward pass; layers without a density are dense."""
    saved = sum(cost.macs[name] * (1 - density) for name, density in densities.items())
    return 1 - saved / cost.total


def published_ratio(cost: ForwardCost, densities: Mapping[str, float]) -> float:
    """Return sparse over dense forward cost as RigL's published factors count it.

    These factors count two operations per MAC. They count one more operation (bias or activation)
    per output element of a convolution or a product with a weight; pruning does not save this
    operation: (2 x sparse MACs + outputs) / (2 x dense MACs + outputs). For ResNet-50 the result
    differs from `inference_ratio` in the third digit.
    """
    operations = 2 * cost.total
    sparse = operations * inference_ratio(cost, densities)
    return (sparse + cost.outputs) / (operations + cost.outputs)


def rigl_factor(sparse: float, every: int = 100) -> float:
    """Return RigL's training cost over dense training (Evci et al., 2020, appendix H).

    One of every + 1 steps is an update: a sparse forward pass, a sparse backward pass through
    activations, and the dense gradient of the weights. With f_D = 1 for the dense forward pass, the
    ratio is (3 f_s every + 2 f_s + f_D) / (3 f_D (every + 1)).

    Args:
        sparse: f_s / f_D; the value of `published_ratio` gives the published factors.
        every: optimiser steps between two updates (delta T).
    """
    return (3 * sparse * every + 2 * sparse + 1) / (3 * (every + 1))


@dataclass(frozen=True)
class PlanCost:
    """The cost of a plan.

    Attributes:
        dense_epochs: training cost in epochs of dense training.
        peak_density: largest density of the prunable weights in any step.
        mean_density: mean density of the prunable weights over the steps.
    """

    dense_epochs: float
    peak_density: float
    mean_density: float


def plan_cost(plan: Plan, counts: Counts, cost: ForwardCost, steps_per_epoch: int) -> PlanCost:
    """Return the exact cost of a plan whose final counts are known.

    A step costs 3 f at the layers' current densities. An update with the dense gradient replaces an
    optimiser step and costs 2 f plus the dense gradient.

    Args:
        plan: the plan.
        counts: number of weights that each layer keeps.
        cost: forward cost of the dense model.
        steps_per_epoch: optimiser steps of one epoch.
    """
    numel = {layer.name: layer.numel for layer in counts.layers}
    uses = dict.fromkeys(numel, 0)  # of weights, in the products of all steps
    steps = active_steps = peak = 0
    for segment in plan.segments:
        for stretch in _stretches(segment, numel, counts, steps_per_epoch):
            for name, active in stretch.active.items():
                uses[name] += 3 * active * stretch.steps
                uses[name] += (2 * active + numel[name]) * stretch.dense_gradients
            total = sum(stretch.active.values())
            count = stretch.steps + stretch.dense_gradients
            steps += count
            active_steps += total * count
            peak = max(peak, total)
    sparse = sum(cost.macs[name] * count / numel[name] for name, count in uses.items())
    rest = cost.total - sum(cost.macs[name] for name in uses)
    dense_steps = (sparse / 3 + rest * steps) / cost.total
    weights = sum(numel.values())
    return PlanCost(dense_steps / steps_per_epoch, peak / weights, active_steps / steps / weights)


def _stretches(
    segment: Segment, numel: Mapping[str, int], counts: Counts, steps_per_epoch: int
) -> Iterator[Stretch]:
    steps = segment.phase.epochs * steps_per_epoch
    update = segment.phase.update
    grown = {name: numel[name] for name in segment.phase.grow}
    if update is None:
        yield Stretch({**counts(), **grown}, steps)
    else:
        yield from update.stretches(steps, counts, grown)

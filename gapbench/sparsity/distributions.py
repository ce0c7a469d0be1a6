"""How a sparsity is spread over layers. Imports torch only for magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gapbench.errors import UserError
from gapbench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Distribution:
    """A registered distribution.

    Attributes:
        by_magnitude: whether it needs weights (`global_magnitude`) or shapes alone.
    """

    name: str
    by_magnitude: bool
    spread: Callable[..., dict[str, Any]]

    @property
    def origin(self) -> str:
        """Where the function is, for messages."""
        return f"{self.spread.__module__}.{self.spread.__name__}"


distributions: Registry[Distribution] = Registry("distribution", "gapbench.sparsity")


def distribution(
    name: str, *, by_magnitude: bool = False
) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Register a function from (shapes, sparsity) to densities, or from (weights, sparsity)."""

    def add(spread: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        distributions.register(name)(Distribution(name, by_magnitude, spread))
        return spread

    return add


def densities(name: str, shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Return the density of every layer under a distribution that needs shapes alone.

    Raises:
        UserError: if the name is unknown, needs magnitudes, or the sparsity is outside [0, 1).
    """
    if distributions[name].by_magnitude:
        raise UserError(
            f"distribution {name}: its densities follow from weights, not from shapes"
        )
    return distributions[name].spread(shapes, sparsity)


@distribution("uniform")
def uniform(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Give every layer the same density 1 - sparsity.

    Args:
        shapes: shape of every layer by name.
        sparsity: in [0, 1).
    """
    _check(sparsity)
    return dict.fromkeys(shapes, 1 - sparsity)


@distribution("erk")
def erk(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Return Erdos-Renyi-kernel densities: epsilon x sum(dims) / prod(dims), clipped at 1.

    Epsilon is solved so that the nonzeros of all layers together are (1 - sparsity) of the
    weights; layers that would exceed density 1 become dense, all that tie for the largest raw
    value together, and epsilon is solved again over the rest (RigL, section 3).

    Args:
        shapes: shape of every layer by name; convolutions are (out, in, kernel...).
        sparsity: in [0, 1).
    """
    _check(sparsity)
    numel = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / numel[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        free = [name for name in shapes if name not in dense]
        wanted = (1 - sparsity) * sum(numel.values()) - sum(
            numel[name] for name in dense
        )
        weight = sum(raw[name] * numel[name] for name in free)
        epsilon = wanted / weight if free else 0.0
        largest = max((raw[name] for name in free), default=0.0)
        if epsilon * largest <= 1 + 1e-12:
            return {
                n: 1.0 if n in dense else min(1.0, epsilon * raw[n]) for n in shapes
            }
        dense.update(name for name in free if raw[name] == largest)


@distribution("global_magnitude", by_magnitude=True)
def global_magnitude(
    weights: Mapping[str, Tensor], sparsity: float, floor: float = 0.005
) -> dict[str, int]:
    """Return the kept counts that one magnitude threshold over all layers gives.

    Every layer keeps at least `floor` of its weights, or one an output unit if that is more, so
    that none collapses. Counts add up to N - floor(sparsity x N) unless the floors alone exceed it.

    Args:
        weights: the layers that are pruned together, by name, in model order.
        sparsity: fraction of zeros over all of them, in [0, 1).
        floor: least density of a layer.
    """
    import torch

    from gapbench.sparsity.masks import top_mask, zeros_of

    _check(sparsity)
    numel = sum(weight.numel() for weight in weights.values())
    keep = numel - zeros_of(numel, 1 - sparsity)
    least = {
        name: min(w.numel(), max(math.ceil(floor * w.numel()), w.shape[0]))
        for name, w in weights.items()
    }
    fixed: dict[str, int] = {}  # layers held up by their floor
    while True:
        free = {name: weight for name, weight in weights.items() if name not in fixed}
        budget = max(0, keep - sum(fixed.values()))
        if not free:
            return {name: fixed[name] for name in weights}
        scores = torch.cat(
            [weight.detach().abs().reshape(-1) for weight in free.values()]
        )
        mask = top_mask(scores, min(budget, scores.numel()))
        parts = mask.split([weight.numel() for weight in free.values()])
        counts = dict(
            zip(free, torch.stack([part.sum() for part in parts]).tolist(), strict=True)
        )
        low = {name: least[name] for name in free if counts[name] < least[name]}
        if not low:
            return {name: fixed.get(name, counts.get(name, 0)) for name in weights}
        fixed.update(low)


def _check(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise UserError(
            f"sparsity: {sparsity} is not possible: give a number in [0, 1)"
        )

"""Distributions of an overall sparsity over layers. Imports torch only for given weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gapbench.base.registry import Registry
from gapbench.errors import UserError
from gapbench.sparsity.counts import zeros_of

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
EMERGENT = "emergent"  # of methods that learn how many weights each layer keeps
FLOOR = 0.005  # the least density of a layer under global_magnitude
Spread = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Distribution:
    """A registered distribution.

    Attributes:
        by_magnitude: whether `spread` takes weights and returns kept counts; otherwise `spread`
            takes shapes and returns densities.
        least: minimum kept counts of layers of given shapes, if the rule has such floors.
    """

    name: str
    by_magnitude: bool
    spread: Spread
    least: Callable[[Shapes], dict[str, int]] | None = None

    @property
    def origin(self) -> str:
        """Location of the function, for messages."""
        return f"{self.spread.__module__}.{self.spread.__name__}"


distributions: Registry[Distribution] = Registry("distribution", "gapbench.sparsity.distributions")


def distribution(
    name: str,
    *,
    by_magnitude: bool = False,
    least: Callable[[Shapes], dict[str, int]] | None = None,
) -> Callable[[Spread], Spread]:
    """Register a function of (shapes, sparsity), or with `by_magnitude` of (weights, sparsity)."""

    def add(spread: Spread) -> Spread:
        distributions.register(name)(Distribution(name, by_magnitude, spread, least))
        return spread

    return add


def densities(name: str, shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Return the density of every layer under a distribution that depends on shapes alone.

    Raises:
        UserError: if the name is unknown, if the distribution depends on weights, or if the
            sparsity is outside [0, 1).
    """
    chosen = distributions[name]
    if chosen.by_magnitude:
        raise UserError(f"distribution {name}: its densities follow from weights, not from shapes")
    return chosen.spread(shapes, sparsity)


def check_reachable(
    name: str, shapes: Shapes, sparsity: float, together: Iterable[frozenset[str]]
) -> None:
    """Check that the layers of each prune can reach a sparsity under a distribution.

    Args:
        name: name of the distribution.
        shapes: shape of every layer by name.
        sparsity: fraction of zeros, in [0, 1).
        together: names of the layers of each prune.

    Raises:
        UserError: naming layers of one prune whose minimum counts add up to more than the kept
            count.
    """
    least_counts = distributions[name].least
    if least_counts is None:
        return
    for group in dict.fromkeys(together):
        own = {layer: shape for layer, shape in shapes.items() if layer in group}
        numel = sum(math.prod(shape) for shape in own.values())
        budget = numel - zeros_of(numel, 1 - sparsity)
        least = sum(least_counts(own).values())
        if least > budget:
            raise UserError(
                f"sparsity: {sparsity} is out of reach under {name}: {', '.join(own)}, pruned "
                f"together, would keep {budget} of {numel} weights, and their floors are {least}"
            )


@distribution("dense")
def dense(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Keep every weight of every layer: the distribution of dense training.

    Args:
        shapes: shape of every layer by name.
        sparsity: must be 0.

    Raises:
        UserError: if the sparsity is not 0.
    """
    _check(sparsity)
    if sparsity != 0:
        raise UserError(f"sparsity: {sparsity} is not possible under dense: give 0")
    return dict.fromkeys(shapes, 1.0)


@distribution("uniform")
def uniform(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Give every layer the density 1 - sparsity.

    Args:
        shapes: shape of every layer by name.
        sparsity: fraction of zeros, in [0, 1).

    Raises:
        UserError: if the sparsity is outside [0, 1).
    """
    _check(sparsity)
    return dict.fromkeys(shapes, 1 - sparsity)


@distribution(EMERGENT)
def emergent(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Stand for zeros that a method learns by itself; the density 1 - sparsity serves for counts.

    Args:
        shapes: shape of every layer by name.
        sparsity: fraction of zeros, in [0, 1).

    Raises:
        UserError: if the sparsity is outside [0, 1).
    """
    return uniform(shapes, sparsity)


@distribution("erk")
def erk(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Return Erdős–Rényi-kernel densities: epsilon x sum(dims) / prod(dims), clipped at 1.

    Epsilon is chosen such that all layers together keep as many weights as uniform masks with exact
    counts. If a layer's density would exceed 1, the layers that tie for the largest ratio become
    dense together, and epsilon is solved again over the others (Evci et al., 2020, section 3).

    Args:
        shapes: shape of every layer by name; convolutions have (out, in, height, width).
        sparsity: fraction of zeros, in [0, 1).

    Raises:
        UserError: if the sparsity is outside [0, 1).
    """
    _check(sparsity)
    numel = {name: math.prod(shape) for name, shape in shapes.items()}
    ratio = {name: sum(shape) / numel[name] for name, shape in shapes.items()}
    wanted = float(sum(count - zeros_of(count, 1 - sparsity) for count in numel.values()))
    density: dict[str, float] = {}
    free = dict(shapes)
    while free:
        epsilon = wanted / sum(sum(shape) for shape in free.values())
        largest = max(ratio[name] for name in free)
        if epsilon * largest <= 1:
            return density | {name: epsilon * ratio[name] for name in free}
        for name in [name for name in free if ratio[name] == largest]:
            density[name] = 1.0
            wanted -= numel[name]
            del free[name]
    return density


def floors(shapes: Shapes, floor: float = FLOOR) -> dict[str, int]:
    """Return the minimum counts of global_magnitude: a share `floor`, or one per row if more."""
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        numel = math.prod(shape)
        counts[name] = max(numel - zeros_of(numel, floor), shape[0])
    return counts


@distribution("global_magnitude", by_magnitude=True, least=floors)
def global_magnitude(
    weights: Mapping[str, Tensor], sparsity: float, floor: float = FLOOR
) -> dict[str, int]:
    """Return the kept counts that result from one magnitude threshold over all layers.

    No layer collapses: each layer keeps at least the share `floor` of its weights, or one weight
    per row (output unit) if this is more. The counts add up to N - floor(sparsity x N), unless the
    minimum counts alone are more. Among equal magnitudes, earlier layers, then lower indices win.

    Args:
        weights: weights of the layers that are pruned together, by name, in model order.
        sparsity: fraction of zeros over all these layers, in [0, 1).
        floor: minimum density of a layer.

    Raises:
        UserError: if the sparsity is outside [0, 1).
    """
    from gapbench.sparsity.masks import top_counts  # needs torch; the other rules do not

    _check(sparsity)
    free = dict(weights)
    least = floors({name: tuple(weight.shape) for name, weight in weights.items()}, floor)
    numel = sum(weight.numel() for weight in weights.values())
    budget = numel - zeros_of(numel, 1 - sparsity)
    kept: dict[str, int] = {}  # first of the layers that their least counts hold up
    while free:
        counts = top_counts(free, budget)
        low = [name for name, count in counts.items() if count < least[name]]
        if not low:
            kept.update(counts)
            break
        for name in low:
            kept[name] = least[name]
            budget = max(0, budget - least[name])
            del free[name]
    return {name: kept[name] for name in weights}


def _check(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity: {sparsity} is not possible: give a number in [0, 1)")

"""Conversion of densities to exact counts. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gapbench.plan.phases import Layers

if TYPE_CHECKING:
    from gapbench.sparsity.pattern import Pattern

# What rounding may take from a layer's zeros, relative to its size: a density gets here through a
# few dozen operations, each of which loses at most 1.1e-16.
_ROUNDING = 1e-12


def zeros_of(numel: int, density: float) -> int:
    """Return floor((1 - density) x numel), the number of zeros of a layer.

    If floating-point rounding puts the product just below an integer, the result is this integer:
    90 % of 10 weights are 9 zeros.

    Args:
        numel: number of weights.
        density: fraction of the weights that is kept; values outside [0, 1] are clipped.
    """
    zeros = math.floor((1 - density) * numel + _ROUNDING * numel)
    return min(numel, max(0, zeros))


class Counts:
    """The number of weights that each layer keeps under a pattern.

    Args:
        layers: the prunable layers.
        densities: final density of every layer.
        pattern: pattern that restricts the counts of masks; None allows any count.
    """

    def __init__(
        self, layers: Layers, densities: Mapping[str, float], pattern: Pattern | None = None
    ) -> None:
        self.layers = layers
        self._layers = {layer.name: layer for layer in layers}
        self._densities = densities
        self._pattern = pattern

    def __call__(self, progress: float = 1.0) -> dict[str, int]:
        """Return the kept count of every layer at `progress` times the final sparsity."""
        return {name: self.of(name, progress) for name in self._layers}

    def of(self, name: str, progress: float = 1.0) -> int:
        """Return the kept count of one layer."""
        return self.fit(name, self.asked(name, progress))

    def asked(self, name: str, progress: float = 1.0) -> int:
        """Return the kept count that follows from the layer's density, without the pattern."""
        numel = self._layers[name].numel
        return numel - zeros_of(numel, 1 - (1 - self._densities[name]) * progress)

    def fit(self, name: str, count: int) -> int:
        """Return the count nearest to `count` that a layer can have; see `Pattern.fit`."""
        return count if self._pattern is None else self._pattern.fit(self._layers[name], count)

    def exact_densities(self) -> dict[str, float]:
        """Return the density of every layer that results from its kept count."""
        return {name: self.of(name) / layer.numel for name, layer in self._layers.items()}

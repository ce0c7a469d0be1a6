"""From densities to exact counts. Pure Python."""

from __future__ import annotations

import math

# What rounding may take from a layer's zeros, relative to its size: a density gets here through a
# few dozen operations, each of which loses at most 1.1e-16.
_ROUNDING = 1e-12


def zeros_of(numel: int, density: float) -> int:
    """Return floor((1 - density) x numel), the zeros of a layer.

    A product that rounding puts just below an integer counts as that integer: 90 % of 10 weights
    are 9 zeros.

    Args:
        numel: number of weights.
        density: fraction of them that is kept; outside [0, 1] it counts as the nearer end.
    """
    zeros = math.floor((1 - density) * numel + _ROUNDING * numel)
    return min(numel, max(0, zeros))

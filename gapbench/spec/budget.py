"""Equal-FLOPs budgets: the number of epochs with a given training cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from gapbench.errors import UserError

LARGEST = 1 << 20  # epochs; far beyond any budget
WINDOW = 3  # steps of a method are whole epochs, so cost is not quite monotone in epochs


def nearest_epochs(target: float, cost_of: Callable[[int], float | None]) -> int:
    """Return the number of epochs whose training cost is nearest to `target`, the fewer in a tie.

    Args:
        target: training cost in any unit.
        cost_of: function that returns the cost of a number of epochs in this unit, or None if the
            epochs are too few.

    Raises:
        UserError: if even the smallest possible number of epochs costs much more than `target`.
    """
    cost_of = cache(cost_of)
    high = 1
    while (cost := cost_of(high)) is None or cost < target:
        high *= 2
        if high > LARGEST:
            raise UserError(f"no number of epochs costs {target:g}")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        cost = cost_of(middle)
        low, high = (low, middle) if cost is not None and cost >= target else (middle, high)
    near = range(max(1, high - WINDOW), high + WINDOW + 1)
    costs = {epochs: cost for epochs in near if (cost := cost_of(epochs)) is not None}
    best = min(costs, key=lambda epochs: abs(costs[epochs] - target))
    if costs[best] > 1.1 * target and cost_of(best - 1) is None:
        raise UserError(f"{target:g} is too little: the least is {costs[best]:.3g}")
    return best

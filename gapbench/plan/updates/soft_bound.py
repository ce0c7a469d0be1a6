"""Drop-and-grow with a soft memory bound: MEST."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gapbench.plan.update import Active, Masks, Stretch, Update, update


@update("soft_bound")
@dataclass(frozen=True)
class SoftBound(Update):
    """Grow a surplus of weights, train, and drop the lowest |w| + coefficient x |g|.

    At each step t that is a positive multiple of `every` and below until x steps, each layer drops
    to its target count and then grows int(p x target) random positions. The surplus p falls
    linearly from alpha to 0. At the next multiple of `every`, each layer drops to its target for
    good.

    Attributes:
        every: optimiser steps between two changes.
        until: end of growth, as a fraction of the phase.
        alpha: the initial surplus p.
        coefficient: lambda, the weight of the gradient's magnitude.

    Source: G. Yuan et al., MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the
    Edge, 2021, section 3 (elastic mutation with a soft memory bound).
    """

    every: int = 100
    until: float = 0.75
    alpha: float = 0.3
    coefficient: float = 0.01
    kind: Literal["soft_bound"] = "soft_bound"

    @property
    def scores(self) -> tuple[str, ...]:
        """The score magnitude_gradient (for dropping) and the score random (for growing)."""
        return "magnitude_gradient", "random"

    def due(self, step: int, steps: int) -> bool:
        """Say whether step `step` of a phase of `steps` steps changes masks."""
        return step > 0 and step % self.every == 0 and step <= self.last(steps)

    def dues(self, steps: int) -> range:
        """Return the multiples of `every` up to the last change."""
        return range(self.every, self.last(steps) + 1, self.every)

    def last(self, steps: int) -> int:
        """Return the step of the last change, which only drops."""
        return (
            min(-(-int(self.until * steps) // self.every), (steps - 1) // self.every) * self.every
        )

    def surplus(self, step: int, steps: int) -> float:
        """Return the surplus p after the change at `step`."""
        last = self.last(steps)
        return self.alpha * (1 - step / last) if last else 0.0

    def change(self, masks: Masks, step: int, steps: int) -> None:
        """Drop to the targets, then grow the surplus."""
        drop, grow = self.scores
        masks.resize(1.0, drop, grow, self.coefficient)
        if (surplus := self.surplus(step, steps)) > 0:
            masks.resize(1 + surplus, drop, grow, self.coefficient)

    def stretches(self, steps: int, active: Active, grown: Mapping[str, int]) -> Iterator[Stretch]:
        """Yield the steps between two changes with the active counts, surplus included."""
        targets = {**active(1.0), **grown}
        dense, start, now = active(0.0), 0, targets
        for step in self.dues(steps):
            yield Stretch(now, step + 1 - start)
            factor = 1 + self.surplus(step, steps)
            now = {n: active.fit(n, min(dense[n], int(factor * c))) for n, c in targets.items()}
            start = step + 1
        yield Stretch(now, steps - start)

"""Gradual pruning with zero-cost regrowth: GraNet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from gapbench.plan.update import Masks, update
from gapbench.plan.updates.gradual import Gradual


@update("regrowing")
@dataclass(frozen=True)
class Regrowing(Gradual):
    """After each prune drop a further share of the smallest weights and grow as many by gradient.

    The share is alpha / 2 x (1 + cos(pi (t - t0) / (t1 - t0))), so the last prune moves no weight.

    Attributes:
        alpha: the initial share.

    Source: S. Liu et al., Sparse Training via Boosting Pruning Plasticity with Neuroregeneration,
    2021, algorithm 1.
    """

    alpha: float = 0.5
    kind: Literal["regrowing"] = "regrowing"  # type: ignore[assignment]

    moves: ClassVar[bool] = True
    dense_gradient: ClassVar[bool] = True

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores magnitude (for dropping) and gradient (for growing)."""
        return "magnitude", "gradient"

    def fraction(self, step: int, steps: int) -> float:
        """Return the share of active weights that moves after the prune at `step`."""
        t0, t1 = self._span(steps)
        return self.alpha / 2 * (1 + math.cos(math.pi * min(1.0, (step - t0) / (t1 - t0))))

    def change(self, masks: Masks, step: int, steps: int) -> None:
        """Prune, then drop and grow."""
        masks.prune(self.progress(step, steps))
        masks.drop_and_grow(self.fraction(step, steps), "magnitude", "gradient")

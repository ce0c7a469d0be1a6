"""Drop-and-grow: RigL and SET."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from gapbench.base.identity import Neutral
from gapbench.plan.update import Masks, Update, update


@update("drop_grow")
@dataclass(frozen=True)
class DropGrow(Update):
    """Replace part of each sparse layer's mask every `every` steps (RigL, SET).

    An update is due at step t of the phase, counted from 0, if t is a positive multiple of `every`
    and t < T_end = until x steps of the phase. The update drops the k = int(f(t) x active) active
    weights of the lowest drop score, and grows k positions; f is the cosine of RigL, section 3.

    Attributes:
        score: the growth score: gradient, random, or another registered score.
        every: optimiser steps between two updates (RigL's delta T).
        until: T_end as a fraction of the phase.
        alpha: the initial drop fraction.
        replaces_step: whether the update replaces the optimiser step.
        drop: the drop score.
        coefficient: coefficient of a score with two terms.
    """

    score: str
    every: int = 100
    until: float = 0.75
    alpha: float = 0.3
    replaces_step: bool = True
    kind: Literal["drop_grow"] = "drop_grow"
    drop: Annotated[str, Neutral("magnitude")] = "magnitude"
    coefficient: Annotated[float, Neutral(0.0)] = 0.0

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores of dropping and of growing."""
        return self.drop, self.score

    @property
    def dense_gradient(self) -> bool:  # type: ignore[override]
        """Whether growth needs the gradients of masked weights."""
        return self.score != "random"

    def due(self, step: int, steps: int) -> bool:
        """Say whether step `step` of a phase of `steps` steps is an update."""
        return step > 0 and step % self.every == 0 and step < self.until * steps

    def dues(self, steps: int) -> range:
        """Return the multiples of `every` below T_end."""
        return range(self.every, math.ceil(self.until * steps), self.every)

    def fraction(self, step: int, steps: int) -> float:
        """Return the drop fraction alpha / 2 x (1 + cos(pi t / T_end))."""
        return self.alpha / 2 * (1 + math.cos(math.pi * step / (self.until * steps)))

    def change(self, masks: Masks, step: int, steps: int) -> None:
        """Drop and grow."""
        masks.drop_and_grow(self.fraction(step, steps), self.drop, self.score, self.coefficient)

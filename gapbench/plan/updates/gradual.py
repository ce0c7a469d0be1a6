"""Gradual magnitude pruning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from gapbench.plan.update import Active, Masks, Stretch, Update, update


@update("gradual")
@dataclass(frozen=True)
class Gradual(Update):
    """Prune further every `every` steps, along the cubic curve of Zhu & Gupta (2017), eq. 1.

    Attributes:
        every: optimiser steps between two prunes.
        start: t0 as a fraction of the phase.
        stop: t1 as a fraction of the phase; from t1 on every layer is at its target.
    """

    every: int = 100
    start: float = 0.3125
    stop: float = 0.78125
    kind: Literal["gradual"] = "gradual"

    moves: ClassVar[bool] = False
    reaches_targets: ClassVar[bool] = True

    def due(self, step: int, steps: int) -> bool:
        """Say whether step `step` of a phase of `steps` steps prunes; step t1 always prunes."""
        t0, t1 = self._span(steps)
        return (t0 <= step < t1 and (step - t0) % self.every == 0) or step == t1

    def dues(self, steps: int) -> list[int]:
        """Return the steps that prune in a phase of `steps` steps, in order."""
        t0, t1 = self._span(steps)
        return [*range(t0, t1, self.every), t1]

    def progress(self, step: int, steps: int) -> float:
        """Return s(t) / s_final = 1 - (1 - (t - t0) / (t1 - t0))^3, clipped to [0, 1]."""
        t0, t1 = self._span(steps)
        if step >= t1:
            return 1.0
        return 1 - (1 - max(0.0, (step - t0) / (t1 - t0))) ** 3

    def change(self, masks: Masks, step: int, steps: int) -> None:
        """Prune to the sparsity of the step."""
        masks.prune(self.progress(step, steps))

    def completes(self, step: int, steps: int) -> bool:
        """Say whether this prune reaches the target."""
        return self.due(step, steps) and self.progress(step, steps) == 1

    def stretches(self, steps: int, active: Active, grown: Mapping[str, int]) -> Iterator[Stretch]:
        """Yield the steps between prunes; a prune follows the optimiser step of its due step."""
        progress, start = 0.0, 0
        for stop in [*(step + 1 for step in self.dues(steps)), steps]:
            if stop > start:
                dense = int(self.dense_gradient and self.due(stop - 1, steps))
                yield Stretch(active(progress), stop - start - dense, dense)
            progress, start = self.progress(stop - 1, steps), stop

    def _span(self, steps: int) -> tuple[int, int]:
        return math.floor(self.start * steps), math.floor(self.stop * steps)

"""Gradual magnitude pruning (Zhu & Gupta, 2017)."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, names_of
from gapbench.plan.updates.gradual import Gradual


@method("gradual", label="Gradual pruning", small={"every": 4}, look=("#88CCEE", "D"))
def gradual(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    every: int = 100,
    start: float = 0.3125,
    stop: float = 0.78125,
) -> Plan:
    """Prune from dense to the target along the cubic curve, every `every` steps.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        every: optimiser steps between two prunes.
        start: time of the first prune, as a fraction of the run.
        stop: time of the last prune, which reaches the target, as a fraction of the run.

    Raises:
        UserError: unless 0 <= start < stop < 1 and every >= 1.
    """
    if not 0 <= start < stop < 1 or every < 1:
        raise UserError(
            f"gradual: start {start}, stop {stop}, every {every}: "
            "needs 0 <= start < stop < 1 (fractions of the run) and every >= 1"
        )
    update = Gradual(every, start, stop)
    return Plan((Phase(epochs, grow=names_of(layers), update=update, label="gradual"),))

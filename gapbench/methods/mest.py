"""MEST (Yuan et al., 2021): drop-and-grow by |w| + lambda |g| with a soft memory bound (EM&S)."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan
from gapbench.plan.updates.soft_bound import SoftBound


@method("mest", label="MEST", small={"every": 4}, look=("#661100", ">"))
def mest(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    every: int = 100,
    until: float = 0.75,
    alpha: float = 0.3,
    coefficient: float = 0.01,
) -> Plan:
    """Grow a random surplus of weights, train, and drop the lowest |w| + coefficient x |g|.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        every: optimiser steps between two changes.
        until: time of the last growth, as a fraction of the run.
        alpha: the first surplus, as a share of the target count.
        coefficient: weight of the gradient's magnitude in the score.

    Raises:
        UserError: unless every >= 1, 0 < until <= 1, 0 < alpha <= 1 and coefficient >= 0.
    """
    if every < 1 or not 0 < until <= 1 or not 0 < alpha <= 1 or coefficient < 0:
        raise UserError(
            f"mest: every {every}, until {until}, alpha {alpha}, coefficient {coefficient}: "
            "needs every >= 1, 0 < until <= 1, 0 < alpha <= 1 and coefficient >= 0"
        )
    update = SoftBound(every, until, alpha, coefficient)
    return Plan((Phase(epochs, update=update, label="sparse"),), initial="random")

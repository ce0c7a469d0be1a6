"""GraNet (Liu et al., 2021): gradual pruning from dense with zero-cost regrowth."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, names_of
from gapbench.plan.updates.regrowing import Regrowing


@method("granet", label="GraNet", small={"every": 4}, look=("#6699CC", "p"))
def granet(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    every: int = 100,
    start: float = 0.0,
    stop: float = 0.75,
    alpha: float = 0.5,
) -> Plan:
    """Prune along the cubic curve; after each prune drop and grow a share of the active weights.

    This is the paper's dense-to-sparse variant (s_i = 0).

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        every: optimiser steps between two prunes.
        start: time of the first prune, as a fraction of the run.
        stop: time of the last prune, which reaches the target, as a fraction of the run.
        alpha: share of the active weights that the first regrowth moves.

    Raises:
        UserError: unless 0 <= start < stop < 1, every >= 1 and 0 < alpha < 1.
    """
    if not 0 <= start < stop < 1 or every < 1 or not 0 < alpha < 1:
        raise UserError(
            f"granet: start {start}, stop {stop}, every {every}, alpha {alpha}: "
            "needs 0 <= start < stop < 1, every >= 1 and 0 < alpha < 1"
        )
    update = Regrowing(every, start, stop, alpha=alpha)
    return Plan((Phase(epochs, grow=names_of(layers), update=update, label="gradual"),))

"""RigL (Evci et al., 2020) and SET (Mocanu et al., 2018): one phase whose masks keep moving."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan
from gapbench.plan.updates.drop_grow import DropGrow


@method("rigl", label="RigL", small={"every": 4}, look=("#332288", "^"))
def rigl(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    every: int = 100,
    alpha: float = 0.3,
    until: float = 0.75,
) -> Plan:
    """Drop the smallest weights and grow where the dense gradient is largest (RigL, section 3).

    A run of M times the epochs is the paper's M-fold run. T_end and the learning-rate milestones
    are fractions of the run; the peak rate, the warm-up and the update interval do not change.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        every: optimiser steps between two updates (delta T).
        alpha: share of the active weights that the first update moves.
        until: end of the updates (T_end), as a fraction of the run.
    """
    return _moving(DropGrow("gradient", every, until, alpha), epochs)


@method("set", label="SET", small={"every": 4}, look=("#DDCC77", "<"))
def set_(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    every: int = 100,
    alpha: float = 0.3,
    until: float = 0.75,
) -> Plan:
    """Drop the smallest weights and grow uniformly at random, after the gradient step.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        every: optimiser steps between two updates.
        alpha: share of the active weights that the first update moves.
        until: end of the updates (T_end), as a fraction of the run.
    """
    return _moving(DropGrow("random", every, until, alpha, replaces_step=False), epochs)


def _moving(update: DropGrow, epochs: int) -> Plan:
    if update.every < 1 or not 0 < update.alpha <= 1 or not 0 < update.until <= 1:
        raise UserError(
            f"every {update.every}, alpha {update.alpha}, until {update.until}: "
            "needs every >= 1, 0 < alpha <= 1 and 0 < until <= 1"
        )
    return Plan((Phase(epochs, update=update, label="sparse"),), initial="random")

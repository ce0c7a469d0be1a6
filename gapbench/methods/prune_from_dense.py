"""Prune from dense in one shot: train dense, prune by magnitude, fine-tune."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, names_of


@method("prune_from_dense", label="Prune from dense", look=("#44AA99", "d"))
def prune_from_dense(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    dense_epochs: int | None = None,
    restart: bool = True,
) -> Plan:
    """Train densely for `dense_epochs` (half of the budget if None), prune, train the rest sparse.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget.
        rng: unused.
        dense_epochs: of dense training.
        restart: whether the fine-tune restarts the optimiser state and the learning-rate schedule.

    Raises:
        UserError: if nothing is left for one of the two phases.
    """
    first = epochs // 2 if dense_epochs is None else dense_epochs
    if not 0 < first < epochs:
        raise UserError(f"dense_epochs: {first} of {epochs} epochs leaves a phase empty")
    return Plan(
        (
            Phase(first, grow=names_of(layers), label="dense"),
            Phase(epochs - first, restart=restart, label="fine-tune"),
        )
    )

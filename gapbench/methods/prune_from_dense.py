"""One-shot pruning from dense: train densely, prune by magnitude, fine-tune."""

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
    """Train densely for `dense_epochs`, prune once, and train sparsely for the remaining epochs.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        dense_epochs: epochs of dense training; by default half of the epochs.
        restart: whether the fine-tune restarts the optimiser state and the learning-rate schedule.

    Raises:
        UserError: if no epoch is left for one of the two phases.
    """
    first = epochs // 2 if dense_epochs is None else dense_epochs
    if not 0 < first < epochs:
        raise UserError(f"dense_epochs: {first} of {epochs} epochs leave a phase empty")
    return Plan(
        (
            Phase(first, grow=names_of(layers), label="dense"),
            Phase(epochs - first, restart=restart, label="fine-tune"),
        )
    )

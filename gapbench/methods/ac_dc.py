"""AC/DC (Peste et al., 2021): the whole model alternates between sparse and dense."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, names_of


@method("ac_dc", label="AC/DC", look=("#117733", "P"))
def ac_dc(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    warmup_epochs: int | None = None,
    phase_epochs: int | None = None,
    fine_tune_epochs: int | None = None,
) -> Plan:
    """Warm up densely, alternate sparse and dense phases, and end with a longer sparse phase.

    One learning-rate schedule spans the run, and the optimiser keeps its state. The defaults are
    the paper's proportions (10, 5 and 15 of 100 epochs). As in the paper, epochs that do not fill a
    pair of phases extend the last dense phase.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs.
        rng: unused.
        warmup_epochs: epochs of dense training at the start; by default a tenth of the epochs.
        phase_epochs: epochs of each sparse phase and of each dense phase; by default a twentieth of
            the epochs.
        fine_tune_epochs: epochs of the last sparse phase; by default 15 % of the epochs.

    Raises:
        UserError: if one sparse and one dense phase do not fit between warm-up and last phase.
    """
    warmup = max(1, epochs // 10) if warmup_epochs is None else warmup_epochs
    length = max(1, epochs // 20) if phase_epochs is None else phase_epochs
    fine_tune = max(1, epochs * 15 // 100) if fine_tune_epochs is None else fine_tune_epochs
    middle = epochs - warmup - fine_tune
    pairs = middle // (2 * length) if length > 0 else 0
    if pairs < 1:
        raise UserError(
            f"ac_dc: {epochs} epochs are too few for {warmup} of warm-up, a sparse and a dense "
            f"phase of {length}, and {fine_tune} of fine-tuning: give more epochs"
        )
    every = names_of(layers)
    parts = [Phase(warmup, grow=every, restart=False, label="dense")]
    for pair in range(pairs):
        rest = middle - 2 * length * pairs if pair == pairs - 1 else 0
        parts.append(Phase(length, restart=False, label="sparse"))
        parts.append(Phase(length + rest, grow=every, restart=False, label="dense"))
    parts.append(Phase(fine_tune, restart=False, label="fine-tune"))
    return Plan(tuple(parts))

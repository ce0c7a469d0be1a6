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
    """Warm up densely, alternate sparse and dense phases, end with a longer sparse one.

    One learning-rate schedule spans the run, and the optimiser keeps its state. The defaults are
    the paper's proportions (10, 5 and 15 of 100 epochs); what does not fill a pair of phases goes
    to the last dense phase, as there.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget.
        rng: unused.
        warmup_epochs: of dense training at the beginning; a tenth of the epochs by default.
        phase_epochs: of each sparse and of each dense phase; a twentieth by default.
        fine_tune_epochs: of the sparse phase at the end; 15 % by default.

    Raises:
        UserError: if the epochs do not hold one sparse and one dense phase between the two ends.
    """
    warmup = max(1, epochs // 10) if warmup_epochs is None else warmup_epochs
    length = max(1, epochs // 20) if phase_epochs is None else phase_epochs
    fine_tune = max(1, epochs * 15 // 100) if fine_tune_epochs is None else fine_tune_epochs
    middle = epochs - warmup - fine_tune
    pairs = middle // (2 * length) if length > 0 else 0
    if pairs < 1:
        raise UserError(
            f"ac_dc: {epochs} epochs do not hold {warmup} of warm-up, a sparse and a dense phase "
            f"of {length} and {fine_tune} of fine-tuning: give more epochs"
        )
    every = names_of(layers)
    parts = [Phase(warmup, grow=every, restart=False, label="dense")]
    for pair in range(pairs):
        rest = middle - 2 * length * pairs if pair == pairs - 1 else 0
        parts.append(Phase(length, restart=False, label="sparse"))
        parts.append(Phase(length + rest, grow=every, restart=False, label="dense"))
    parts.append(Phase(fine_tune, restart=False, label="fine-tune"))
    return Plan(tuple(parts))

"""P-GaP: parallel grow-and-prune (Ma et al., 2022, algorithm 2)."""

from __future__ import annotations

import random
from typing import Literal

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.partitions import Rule, partition
from gapbench.plan.phases import Layers, Parallel, Phase, Plan


@method("p_gap", label="P-GaP", small={"partitions": 2, "step_epochs": 3}, look=("#882255", "h"))
def p_gap(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    partitions: int = 4,
    step_epochs: int | None = None,
    rounds: int | None = None,
    partition_rule: Rule = "contiguous",
    patterns: tuple[tuple[str, ...], ...] = (),
    step_lr: Literal["recipe", "constant"] = "recipe",
) -> Plan:
    """In each round grow every partition in its own worker and merge the results; then fine-tune.

    A round costs kappa x T machine-epochs and T epochs of wall-clock time. The defaults of
    `step_epochs` (T) and `rounds` keep the paper's proportions: 1110 machine-epochs are 8 rounds
    of 4 workers x 30 epochs and a fine-tune of 150 epochs.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in machine-epochs; the fine-tune takes the epochs that the rounds
            leave.
        rng: source of random partitions.
        partitions: kappa, the number of partitions and of workers.
        step_epochs: T, the epochs of a round in each worker; epochs // 37 by default.
        rounds: number of rounds; by default as many as fit into 87 % of the machine-epochs.
        partition_rule: rule that splits layers into partitions: consecutive and of equal size,
            dealt out in turn, dealt out shuffled, or by `patterns`.
        patterns: name patterns of each partition, for the rule "patterns"; by default the task's
            patterns.
        step_lr: learning rate inside a round: the recipe's schedule, or constant at the peak rate.

    Raises:
        UserError: if the layers cannot be split this way, or no epoch is left for the fine-tune.
    """
    groups = partition(layers, partitions, partition_rule, rng, patterns)
    length = max(1, epochs // 37) if step_epochs is None else step_epochs
    cost = max(1, partitions * length)
    count = max(1, int(epochs * 0.87 / cost)) if rounds is None else rounds
    fine_tune = epochs - count * cost
    if length < 1 or count < 1 or fine_tune < 1:
        raise UserError(
            f"p_gap: {epochs} machine-epochs are too few for {count} rounds of {partitions} x "
            f"{length} and a fine-tune of at least 1: change epochs, rounds or step_epochs"
        )
    grow_rounds = [
        Parallel(
            tuple(
                Phase(length, grow=group, lr=step_lr, label=f"round {r + 1}/{count}")
                for group in groups
            )
        )
        for r in range(count)
    ]
    return Plan((*grow_rounds, Phase(fine_tune, label="fine-tune")), "random")

"""C-GaP: cyclic grow-and-prune (Ma et al., 2022, algorithm 1), its random variant, and DSD."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Literal

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.partitions import Rule, partition
from gapbench.plan.phases import Layers, Phase, Plan, names_of


@method("c_gap", label="C-GaP", small={"partitions": 2, "step_epochs": 3}, look=("#CC6677", "o"))
def c_gap(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    partitions: int = 4,
    strategy: Literal["cyclic", "random"] = "cyclic",
    step_epochs: int | None = None,
    steps: int | None = None,
    partition_rule: Rule = "contiguous",
    patterns: tuple[tuple[str, ...], ...] = (),
    restart: bool = True,
    step_lr: Literal["recipe", "constant"] = "recipe",
) -> Plan:
    """In each step grow one partition, train, and prune the partition; then fine-tune.

    All layers start sparse under random masks. Step q grows partition q mod kappa for T epochs; the
    other partitions stay inside their masks. The fine-tune keeps the masks of the last step. The
    defaults of `step_epochs` (T) and `steps` keep the paper's proportions: 990 epochs are 28 steps
    of 30 epochs and a fine-tune of 150 epochs.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs; the fine-tune takes the epochs that the steps leave.
        rng: source of random partitions, and of the layers of the random strategy.
        partitions: kappa, the number of partitions.
        strategy: "cyclic" takes the partitions in turn; "random" takes a new random set of a
            kappa-th of the layers in each step, without layers of the step before. With kappa = 2,
            "random" is refused: the set would be the remaining layers, which is not random.
        step_epochs: T, the epochs of a step; epochs // 33 by default.
        steps: number of steps; by default the whole rounds that fit into 85 % of the epochs.
        partition_rule: rule that splits layers into partitions: consecutive and of equal size,
            dealt out in turn, dealt out shuffled, or by `patterns`.
        patterns: name patterns of each partition, for the rule "patterns"; by default the task's
            patterns.
        restart: whether each step restarts the optimiser state and the learning-rate schedule.
        step_lr: learning rate inside a step: the recipe's schedule, or constant at the peak rate.

    Raises:
        UserError: if the layers cannot be split this way, or no epoch is left for the fine-tune.
    """
    order: Iterator[frozenset[str]]
    if strategy == "cyclic":
        order = itertools.cycle(partition(layers, partitions, partition_rule, rng, patterns))
    else:
        order = _random_sets(layers, partitions, rng)
    length = max(1, epochs // 33) if step_epochs is None else step_epochs
    rounds = int(epochs * 0.85 / (max(1, length) * max(1, partitions)))
    count = max(1, rounds) * partitions if steps is None else steps
    fine_tune = epochs - count * length
    if length < 1 or count < 1 or fine_tune < 1:
        raise UserError(
            f"c_gap: {epochs} epochs are too few for {count} steps of {length} and a fine-tune "
            "of at least 1: change epochs, steps or step_epochs"
        )
    grown = itertools.islice(order, count)
    grow_steps = [
        Phase(
            length,
            grow=group,
            restart=restart,
            lr=step_lr,
            label=f"grow {q + 1}/{count}",
        )
        for q, group in enumerate(grown)
    ]
    return Plan((*grow_steps, Phase(fine_tune, restart=restart, label="fine-tune")), "random")


@method("dsd", label="DSD (1 partition)", small={"step_epochs": 4}, look=("#AA4499", "X"))
def dsd(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    step_epochs: int | None = None,
    steps: int | None = None,
    restart: bool = True,
    step_lr: Literal["recipe", "constant"] = "recipe",
) -> Plan:
    """Grow and prune the whole model in each step (dense-sparse-dense): C-GaP with one partition.

    Args:
        layers: the prunable layers, in model order.
        epochs: the whole budget in epochs; the fine-tune takes the epochs that the steps leave.
        rng: unused.
        step_epochs: epochs of a step; defaults as for C-GaP, like those of the options below.
        steps: number of steps.
        restart: whether each step restarts the optimiser state and the learning-rate schedule.
        step_lr: learning rate inside a step: the recipe's schedule, or constant at the peak rate.
    """
    return c_gap(
        layers,
        epochs,
        rng,
        partitions=1,
        step_epochs=step_epochs,
        steps=steps,
        restart=restart,
        step_lr=step_lr,
    )


def _random_sets(layers: Layers, partitions: int, rng: random.Random) -> Iterator[frozenset[str]]:
    """Yield ceil(L / kappa) random layers per step, without layers of the step before."""
    sizes = {kappa: math.ceil(len(layers) / kappa) for kappa in range(1, len(layers) + 1)}
    valid = [kappa for kappa, size in sizes.items() if 2 * size < len(layers)]
    if partitions not in valid:
        possible = f"{valid[0]} to {valid[-1]}" if valid else "none with so few layers"
        raise UserError(
            f"partitions: {partitions} leaves the random strategy no choice among {len(layers)} "
            f"layers, since no layer grows in two successive steps: valid: {possible}"
        )
    last: frozenset[str] = frozenset()
    while True:
        last = frozenset(rng.sample(sorted(names_of(layers) - last), sizes[partitions]))
        yield last

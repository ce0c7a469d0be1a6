"""STR (Kusupati et al., 2020): thresholds of each layer are learned, and with them its sparsity."""

from __future__ import annotations

import random

from gapbench.errors import UserError
from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, Transform, names_of


@method("str", label="STR", small={"s_initial": -4.0, "s_decay": 0.1}, look=("#4477AA", "H"))
def soft_threshold(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    s_initial: float = -3200.0,
    s_decay: float | None = None,
) -> Plan:
    """Train through soft thresholds sigmoid(s), with one s a layer that is trained as well.

    The sparsity is what comes out: a stronger decay of s raises the thresholds sooner, and they
    stop where the loss holds against it. The sparsity that is asked for only names the column of a
    table, and results are compared where they have come within a hundredth of it.

    Args:
        layers: the prunable layers.
        epochs: the whole budget.
        rng: not used.
        s_initial: the first value of s; by default that of the authors for ResNet-50.
        s_decay: weight decay of s; by default the recipe's, as in the paper.

    Raises:
        UserError: if the decay is negative.
    """
    if s_decay is not None and s_decay < 0:
        raise UserError(f"s_decay: {s_decay} is not possible: give 0 or more")
    made = Transform("soft_threshold", s_initial, s_decay, "emergent")
    return Plan((Phase(epochs, grow=names_of(layers), label="train"),), transform=made)

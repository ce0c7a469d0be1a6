"""STR (Kusupati et al., 2020): each layer's threshold, and so its sparsity, is learned."""

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
    """Train through soft thresholds sigmoid(s), with one trained scalar s per layer.

    The sparsity is a result of training: a stronger decay of s raises the thresholds sooner, until
    the loss balances the decay. The requested sparsity only names the column of a table. Results
    are compared in this column if the learned sparsity is within 0.01 of the requested sparsity.

    Args:
        layers: the prunable layers.
        epochs: the whole budget in epochs.
        rng: unused.
        s_initial: initial value of s; the default is the authors' value for ResNet-50.
        s_decay: weight decay of s; by default the recipe's weight decay, as in the paper.

    Raises:
        UserError: if the decay is negative.
    """
    if s_decay is not None and s_decay < 0:
        raise UserError(f"s_decay: {s_decay} is not possible: give 0 or more")
    made = Transform("soft_threshold", s_initial, s_decay, "emergent")
    return Plan((Phase(epochs, grow=names_of(layers), label="train"),), transform=made)

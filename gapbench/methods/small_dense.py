"""Small-dense: a narrower network, dense, that is as small as a sparse one (Evci et al., 2020)."""

from __future__ import annotations

import random
from typing import Literal

from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, names_of


@method("small_dense", label="Small-dense", narrow=True, look=("#AA8866", "8"))
def small_dense(
    layers: Layers,
    epochs: int,
    rng: random.Random,
    *,
    match: Literal["parameters", "inference_flops"] = "parameters",
    full_width: int | None = None,
) -> Plan:
    """Train the widest dense network that is no larger than the sparse one of full width.

    The width follows from the sparsity, distribution and first layer that a row gives.

    Args:
        layers: those of the narrow network.
        epochs: the whole budget.
        rng: not used.
        match: what must not be more: all parameters, or multiply-accumulates of a forward pass.
        full_width: of the network that would be pruned; by default the task's own.
    """
    return Plan((Phase(epochs, grow=names_of(layers), label="dense"),))

"""Small-dense: a narrower dense network of the size of a sparse network (Evci et al., 2020)."""

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
    """Train the widest dense network that is no larger than the sparse network of full width.

    The width follows from the row's settings `sparsity`, `distribution` and `first_layer`.

    Args:
        layers: the layers of the narrow network.
        epochs: the whole budget in epochs.
        rng: unused.
        match: the size to match: all parameters, or the multiply-accumulates of a forward pass.
        full_width: width of the network of full width; by default the task's width.
    """
    return Plan((Phase(epochs, grow=names_of(layers), label="dense"),))

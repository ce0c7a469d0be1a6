"""Dense training: the reference for pruned models."""

from __future__ import annotations

import random

from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan, names_of


@method("dense", label="Dense", look=("#000000", "s"))
def dense(layers: Layers, epochs: int, rng: random.Random) -> Plan:
    """Train every layer densely and prune nothing."""
    return Plan((Phase(epochs, grow=names_of(layers), label="dense"),))

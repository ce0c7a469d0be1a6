"""Static sparse training: the random first mask stays for the whole run."""

from __future__ import annotations

import random

from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan


@method("static", label="Static", look=("#999933", "v"))
def static(layers: Layers, epochs: int, rng: random.Random) -> Plan:
    """Train inside a random mask that never changes."""
    return Plan((Phase(epochs, label="sparse"),), initial="random")

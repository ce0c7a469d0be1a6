"""Fine-tuning: prune the initial model by magnitude, and train the remaining weights."""

from __future__ import annotations

import random

from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan


@method("fine_tune", label="Fine-tune")
def fine_tune(layers: Layers, epochs: int, rng: random.Random) -> Plan:
    """Keep the largest weights of the initial model, and train inside their mask.

    This method is meant for tasks that load trained weights; a sparse model keeps its zeros.
    """
    return Plan((Phase(epochs, label="fine-tune"),))

"""Fine-tuning: prune the model as it is built, and train what is left."""

from __future__ import annotations

import random

from gapbench.methods.method import method
from gapbench.plan.phases import Layers, Phase, Plan


@method("fine_tune", label="Fine-tune")
def fine_tune(layers: Layers, epochs: int, rng: random.Random) -> Plan:
    """Keep the largest weights that the model begins with, and train inside their mask.

    Of a task that loads trained weights these are the ones to keep; a sparse model keeps its zeros.
    """
    return Plan((Phase(epochs, label="fine-tune"),))

"""The score of uniform random growth (SET)."""

from __future__ import annotations

import torch
from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("random")
def random(inputs: Inputs) -> Tensor:
    """Return uniform random numbers, drawn on the CPU and so the same for every device."""
    drawn = torch.rand(inputs.weight.shape, generator=inputs.generator())
    return drawn.to(inputs.weight.device)

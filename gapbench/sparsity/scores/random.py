"""Uniformly at random (SET)."""

from __future__ import annotations

import torch
from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("random")
def random(inputs: Inputs) -> Tensor:
    """Return uniform random numbers, drawn on the CPU: every device gets the same."""
    drawn = torch.rand(inputs.weight.shape, generator=inputs.generator())
    return drawn.to(inputs.weight.device)

"""The score |w|, the magnitude of the weights."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("magnitude")
def magnitude(inputs: Inputs) -> Tensor:
    """Return the magnitude of the weights."""
    return inputs.weight.abs()

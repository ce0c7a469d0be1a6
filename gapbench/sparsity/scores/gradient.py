"""The score |g|, the gradient of the dense layer (RigL)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("gradient")
def gradient(inputs: Inputs) -> Tensor | None:
    """Return the magnitude of the dense gradient."""
    return None if inputs.gradient is None else inputs.gradient.abs()

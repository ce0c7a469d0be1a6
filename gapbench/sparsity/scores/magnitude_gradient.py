"""|w| + lambda |g| (MEST)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("magnitude_gradient")
def magnitude_gradient(inputs: Inputs) -> Tensor | None:
    """Return the magnitude of the weights plus `coefficient` times that of their gradients.

    Source: G. Yuan et al., MEST, 2021, section 3.
    """
    if inputs.gradient is None:
        return None
    return inputs.weight.abs() + inputs.coefficient * inputs.gradient.abs()

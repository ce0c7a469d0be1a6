"""The score |w| + lambda |g| (MEST)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("magnitude_gradient")
def magnitude_gradient(inputs: Inputs) -> Tensor | None:
    """Return |w| + coefficient x |g|: magnitudes of the weights plus weighted gradients.

    Source: G. Yuan et al., MEST, 2021, section 3.
    """
    if inputs.gradient is None:
        return None
    return inputs.weight.abs() + inputs.coefficient * inputs.gradient.abs()

"""The score |m|, the optimiser's first moment (sparse momentum)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.score import Inputs, score


@score("momentum")
def momentum(inputs: Inputs) -> Tensor | None:
    """Return the magnitude of the first moment, which SGD with momentum and Adam keep.

    Source: T. Dettmers and L. Zettlemoyer, Sparse Networks from Scratch, 2019.
    """
    for name in ("momentum_buffer", "exp_avg"):
        if name in inputs.moments:
            return inputs.moments[name].abs()
    return None

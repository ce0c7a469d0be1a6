"""The straight-through estimator: sparse forward, dense gradients."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.transform import Latent, transform


@transform("straight_through")
def straight_through(latent: Latent) -> Tensor:
    """Return the largest weights, with zeros elsewhere; gradients pass to all weights unmasked.

    Source: A. Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From
    Scratch, 2021, eq. 5 (SR-STE without its decay of masked weights).
    """
    weight = latent.weight
    sparse = weight.masked_fill(~latent.select(weight.detach().abs()), 0)
    return weight + (sparse - weight).detach()

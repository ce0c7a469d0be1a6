"""Trained soft thresholds (STR)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.transform import Latent, transform


@transform("soft_threshold")
def soft_threshold(latent: Latent) -> Tensor:
    """Return sign(w) x relu(|w| - sigmoid(s)), s being the layer's parameter.

    Source: A. Kusupati et al., Soft Threshold Weight Reparameterization for Learnable Sparsity,
    2020, eq. 2 and 4.
    """
    if latent.parameter is None:
        raise ValueError("soft_threshold: the plan gives no initial value of its parameter")
    return latent.weight.sign() * (latent.weight.abs() - latent.parameter.sigmoid()).relu()

"""Transforms: the weights that the forward pass sees, as functions of weights that are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gapbench.base.registry import Registry


@dataclass(frozen=True)
class Latent:
    """What the weights of one layer are computed from.

    Attributes:
        weight: the trained tensor.
        parameter: a trained scalar of the layer, or None where the plan gives no initial value.
        select: returns the layer's mask of the largest scores, with its final count.
    """

    weight: Tensor
    parameter: Tensor | None
    select: Callable[[Tensor], Tensor]


# differentiable: gradients of `weight` and `parameter` follow from it
Apply = Callable[[Latent], Tensor]

transforms: Registry[Apply] = Registry("transform", "gapbench.sparsity.transforms")


def transform(name: str) -> Callable[[Apply], Apply]:
    """Register a function of `Latent` that returns weights of the same shape."""
    return transforms.register(name)

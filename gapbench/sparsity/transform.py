"""Transforms: functions that compute the forward pass's weights from trained latent weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gapbench.base.registry import Registry


@dataclass(frozen=True)
class Latent:
    """The inputs of a transform of one layer.

    Attributes:
        weight: the trained latent weight.
        parameter: a trained scalar of the layer, or None if the plan gives no initial value.
        select: function that returns the layer's mask of the largest scores, at the final count.
    """

    weight: Tensor
    parameter: Tensor | None
    select: Callable[[Tensor], Tensor]


# differentiable: the gradients of `weight` and `parameter` are computed through the transform
Apply = Callable[[Latent], Tensor]

transforms: Registry[Apply] = Registry("transform", "gapbench.sparsity.transforms")


def transform(name: str) -> Callable[[Apply], Apply]:
    """Register a function of `Latent` that returns weights of the same shape."""
    return transforms.register(name)

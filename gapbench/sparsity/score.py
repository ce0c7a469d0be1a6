"""Scores that rank the positions of a layer for dropping and growing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.base.registry import Registry


@dataclass(frozen=True)
class Inputs:
    """The inputs of a score of one layer.

    Attributes:
        weight: the detached weight; masked positions are 0.
        gradient: gradient of the dense layer, or None if the layer took no part in the loss.
        moments: the optimiser's tensors of the weight's shape by name, such as momentum_buffer.
        generator: function that returns the layer's random stream at this step, on the CPU.
        coefficient: coefficient of a score with two terms.
    """

    weight: Tensor
    gradient: Tensor | None
    moments: Mapping[str, Tensor]
    generator: Callable[[], torch.Generator]
    coefficient: float = 0.0


# positions of higher scores are kept or grown; None leaves the layer as it is
Compute = Callable[[Inputs], Tensor | None]

scores: Registry[Compute] = Registry("score", "gapbench.sparsity.scores")


def score(name: str) -> Callable[[Compute], Compute]:
    """Register a function of `Inputs` that returns a tensor of the weight's shape."""
    return scores.register(name)

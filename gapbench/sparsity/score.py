"""Scores: by what positions of a layer are dropped and grown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.base.registry import Registry


@dataclass(frozen=True)
class Inputs:
    """What a score of one layer is computed from.

    Attributes:
        weight: detached; masked positions are 0.
        gradient: of the dense layer, or None where the layer took no part in the loss.
        moments: the optimiser's tensors of the weight's shape by name, such as momentum_buffer.
        generator: returns the layer's stream of random numbers at this step, on the CPU.
        coefficient: of scores that weigh two terms.
    """

    weight: Tensor
    gradient: Tensor | None
    moments: Mapping[str, Tensor]
    generator: Callable[[], torch.Generator]
    coefficient: float = 0.0


# higher is kept or grown; None leaves the layer as it is
Compute = Callable[[Inputs], Tensor | None]

scores: Registry[Compute] = Registry("score", "gapbench.sparsity.scores")


def score(name: str) -> Callable[[Compute], Compute]:
    """Register a function of `Inputs` that returns a tensor of the weight's shape."""
    return scores.register(name)

"""Masks without a rule."""

from __future__ import annotations

import torch
from torch import Tensor

from gapbench.sparsity.masks import random_mask, top_mask
from gapbench.sparsity.pattern import LOWEST, UNSTRUCTURED, Pattern, pattern


@pattern(UNSTRUCTURED)
class Unstructured(Pattern):
    """Any position may be active."""

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return the mask of the largest scores beside `kept`."""
        if kept is None:
            return top_mask(scores, count)
        return kept | top_mask(scores.masked_fill(kept, LOWEST), count)

    def holds(self, mask: Tensor) -> bool:
        """Return True."""
        return True

    def random(self, shape: tuple[int, ...], keep: int, generator: torch.Generator) -> Tensor:
        """Return a uniformly random mask."""
        return random_mask(shape, keep, generator)

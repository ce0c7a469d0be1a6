"""Unstructured sparsity: masks without a rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gapbench.sparsity.joined import replaced, top_masks
from gapbench.sparsity.masks import random_mask, top_mask
from gapbench.sparsity.pattern import LOWEST, UNSTRUCTURED, Move, Pattern, pattern


@pattern(UNSTRUCTURED)
class Unstructured(Pattern):
    """Any position may be active."""

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return a mask of `kept` and of the largest other scores."""
        if kept is None:
            return top_mask(scores, count)
        return kept | top_mask(scores.masked_fill(kept, LOWEST), count)

    def largest(
        self, scores: Sequence[Tensor], counts: Sequence[int], masks: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Return the masks; several layers are computed together."""
        if len(scores) == 1:
            return super().largest(scores, counts, masks)
        return top_masks(scores, counts, masks)

    def moved(self, moves: Sequence[Move]) -> list[Tensor]:
        """Return the masks; several layers are computed together."""
        if len(moves) == 1:
            return super().moved(moves)
        grown = [min(move.count, move.active) for move in moves]
        return replaced(
            [move.drop for move in moves],
            [move.mask for move in moves],
            [move.growth for move in moves],
            [move.active - count for move, count in zip(moves, grown, strict=True)],
            grown,
        )

    def holds(self, mask: Tensor) -> bool:
        """Return True."""
        return True

    def random(self, shape: tuple[int, ...], keep: int, generator: torch.Generator) -> Tensor:
        """Return a uniformly random mask."""
        return random_mask(shape, keep, generator)

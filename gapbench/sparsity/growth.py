"""Drop-and-grow: how a mask moves while its count stays (RigL, SET)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.masks import top_mask


def drop_grow(weight: Tensor, mask: Tensor, growth: Tensor, count: int) -> Tensor:
    """Return the mask after dropping the smallest active weights and growing the best positions.

    Args:
        weight: the layer's weights; the `count` active ones of least magnitude are dropped.
        mask: the present boolean mask, of the same shape.
        growth: score of every position, not negative: |dense gradient|, or random numbers.
        count: how many positions are dropped and grown.

    Returns:
        a mask with as many active positions as before.
    """
    return drop_grow_by_scores(weight.detach().abs(), mask, growth, count)


def drop_grow_by_scores(
    drop: Tensor, mask: Tensor, growth: Tensor, count: int
) -> Tensor:
    """Do the same with any `drop` scores: the active positions that score lowest are dropped.

    Growth chooses among all positions that are not kept, so that a position dropped now may come
    back (RigL, algorithm 1). At most as many are moved as there are active positions.
    """
    active = int(mask.sum())
    count = min(count, active)
    kept = top_mask(drop.masked_fill(~mask, -float("inf")), active - count)
    return kept | top_mask(growth.masked_fill(kept, -float("inf")), count)

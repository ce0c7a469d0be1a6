"""Drop-and-grow: how a mask moves while its count stays (RigL, SET)."""

from __future__ import annotations

from torch import Tensor

from gapbench.sparsity.masks import top_mask


def drop_grow(
    drop: Tensor, mask: Tensor, growth: Tensor, count: int, active: int | None = None
) -> Tensor:
    """Drop the `count` active positions of the lowest `drop` score and grow as many.

    Growth chooses among all positions that are not kept, so that a position dropped now may come
    back (RigL, algorithm 1).

    Args:
        drop: score of every position: the weights' magnitude (RigL, SET), or another.
        mask: the present boolean mask, of the same shape.
        growth: score of every position: |dense gradient| (RigL), or random numbers (SET).
        count: how many positions move; at most as many as are active.
        active: how many are active, where that is known: counting them waits for the device.

    Returns:
        a mask with as many active positions as before.
    """
    active = int(mask.sum()) if active is None else active
    count = min(count, active)
    kept = top_mask(drop.masked_fill(~mask, -float("inf")), active - count)
    return kept | top_mask(growth.masked_fill(kept, -float("inf")), count)

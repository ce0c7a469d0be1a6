"""The common part of all image data sets: the order of examples, and each rank's share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gapbench.base.streams import stream_seed
from gapbench.errors import UserError

Images = tuple[Tensor, Tensor]  # (n, channels, h, w) as floats; labels, or one row of mixed ones


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator, so that the order is the same for every device."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose))


def fixed_order(count: int) -> Tensor:
    """Return the fixed permutation of `count` examples from which all trials take their splits."""
    return torch.randperm(count, generator=generator(0, "split"))


def epoch_order(seed: int, count: int) -> Tensor:
    """Return the order of `count` training examples in the epoch of `seed`."""
    return torch.randperm(count, generator=generator(seed, "order"))


def shares(count: int, *, batch_size: int, start: int, rank: int, world: int) -> Iterator[slice]:
    """Yield the slice of this rank's share of every batch; leave out a last, incomplete batch.

    Raises:
        UserError: if the ranks cannot share a batch equally.
    """
    if batch_size % world:
        words = f"cannot be shared by {world} ranks: give a multiple of {world}"
        raise UserError(f"batch_size: {batch_size} images {words}")
    share = batch_size // world
    for index in range(start, count // batch_size):
        first = index * batch_size + rank * share
        yield slice(first, first + share)

"""What all image data sets share: their order, and each rank's share of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gapbench.base.streams import stream_seed
from gapbench.errors import UserError

Images = tuple[Tensor, Tensor]  # (n, channels, h, w) as floats; labels, or one row of mixed ones


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a generator on the CPU whatever the device: the order is the same everywhere."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose))


def fixed_order(count: int) -> Tensor:
    """Return the one permutation of `count` examples that every trial's splits are cut from."""
    return torch.randperm(count, generator=generator(0, "split"))


def epoch_order(seed: int, count: int) -> Tensor:
    """Return the order of `count` training examples in the epoch of `seed`."""
    return torch.randperm(count, generator=generator(seed, "order"))


def shares(count: int, *, batch_size: int, start: int, rank: int, world: int) -> Iterator[slice]:
    """Yield where this rank's share of every batch is; the last, incomplete batch is left out.

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

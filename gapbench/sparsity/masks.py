"""Masks with exact counts: how they are made, compared and packed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gapbench.sparsity.counts import zeros_of

__all__ = ["counts", "digest", "pack", "random_mask", "top_mask", "unpack", "zeros_of"]

_INF = float("inf")


def top_mask(scores: Tensor, keep: int) -> Tensor:
    """Return the mask of the `keep` largest scores; of equal ones the lower index wins.

    One selection finds the lowest score that is kept, and comparisons with it the rest. So the
    order in which a selection takes equal scores does not matter, every device gives the same mask,
    nothing is sorted, and nothing waits for a device. NaN counts as infinitely large: a weight that
    has diverged stays to be seen.

    Args:
        scores: any shape; indices are row-major.
        keep: a count in [0, scores.numel()].

    Returns:
        a boolean tensor of the scores' shape with exactly `keep` True entries.

    Raises:
        ValueError: if `keep` is out of range.
    """
    numel = scores.numel()
    if not 0 <= keep <= numel:
        raise ValueError(f"cannot keep {keep} of {numel} weights")
    if keep in (0, numel):
        return torch.full(scores.shape, keep > 0, dtype=torch.bool, device=scores.device)
    flat = scores.detach().reshape(-1).nan_to_num(nan=_INF, posinf=_INF, neginf=-_INF)
    top = _top_of_host if flat.device.type == "cpu" else _top_of_device
    return top(flat, keep).view(scores.shape)


def _top_of_device(flat: Tensor, keep: int) -> Tensor:
    """Do it without asking the device for a value."""
    threshold = flat.topk(keep, sorted=False).values.amin()
    above, ties = flat > threshold, flat == threshold
    return above | (ties & (ties.cumsum(0) <= keep - above.sum()))


def _top_of_host(flat: Tensor, keep: int) -> Tensor:
    """Do it on the CPU: numpy selects many times faster than torch, and counts can be read.

    Masked entries, and zero gradients behind dead units, are ties that make numpy's partition
    twenty times slower: the lowest values are left out of it as long as they are many.
    """
    if flat.element_size() < 4:
        flat = flat.float()  # exact; numpy has no bfloat16
    values = some = flat.numpy()
    while True:
        threshold = some.min()
        above = some > threshold
        count = int(np.count_nonzero(above))
        if keep > count:
            break
        if count > 0.99 * some.size:
            threshold = np.partition(some, some.size - keep)[some.size - keep]
            break
        some = np.compress(above, some)
    mask = values >= threshold
    surplus = int(np.count_nonzero(mask)) - keep
    if surplus:
        mask[np.flatnonzero(values == threshold)[-surplus:]] = False
    return torch.from_numpy(mask)


def random_mask(shape: tuple[int, ...], keep: int, generator: torch.Generator) -> Tensor:
    """Return a uniformly random mask with exactly `keep` True entries.

    Args:
        shape: of the mask.
        keep: a count in [0, product of the shape].
        generator: on the CPU, where the mask is drawn too, so that every device gets the same.

    Raises:
        ValueError: if `keep` is out of range.
    """
    numel = math.prod(shape)
    if not 0 <= keep <= numel:
        raise ValueError(f"cannot keep {keep} of {numel} weights")
    mask = torch.zeros(numel, dtype=torch.bool)
    mask[torch.randperm(numel, generator=generator)[:keep]] = True
    return mask.view(shape)


def counts(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many entries of each mask are True; waits once for a device, not once a mask."""
    found: dict[str, int] = {}
    for device in {mask.device for mask in masks.values()}:
        own = {n: mask.count_nonzero() for n, mask in masks.items() if mask.device == device}
        found.update(zip(own, torch.stack(list(own.values())).tolist(), strict=True))
    return {name: found[name] for name in masks}


def digest(masks: Mapping[str, Tensor]) -> str:
    """Return a sha256 that is equal for equal masks of equal names, whatever their order."""
    names = sorted(masks)
    total = hashlib.sha256(repr([(name, tuple(masks[name].shape)) for name in names]).encode())
    if names:
        packed = torch.cat([pack(masks[name]) for name in names])  # one transfer for all layers
        total.update(packed.cpu().numpy().tobytes())
    return total.hexdigest()


def pack(mask: Tensor) -> Tensor:
    """Return a mask as a vector of uint8: eight entries a byte, row-major, zero-padded."""
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    return (padded.view(-1, 8) << _bits(mask.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the mask of `shape` that `pack` was given."""
    bits = (packed.unsqueeze(1) >> _bits(packed.device)) & 1
    return bits.view(-1)[: math.prod(shape)].bool().view(shape)


def _bits(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)

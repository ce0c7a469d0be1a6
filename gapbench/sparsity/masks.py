"""Masks with exact counts: how they are made, compared and packed."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gapbench.sparsity.counts import zeros_of

__all__ = [
    "counts",
    "digest",
    "pack",
    "random_mask",
    "top_counts",
    "top_mask",
    "unpack",
    "zeros_of",
]

FloatArray = npt.NDArray[np.floating[Any]]

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
    """Do it on the CPU: numpy selects many times faster than torch, and counts can be read."""
    if flat.element_size() < 4:
        flat = flat.float()  # exact; numpy has no bfloat16
    values = flat.numpy()
    threshold = _threshold(values, keep)
    mask = values >= threshold
    surplus = int(np.count_nonzero(mask)) - keep
    if surplus:
        mask[np.flatnonzero(values == threshold)[-surplus:]] = False
    return torch.from_numpy(mask)


def _threshold(values: FloatArray, keep: int) -> Any:
    """Return the lowest of the `keep` largest values.

    Masked entries, and zero gradients behind dead units, are ties that make numpy's partition
    twenty times slower: the lowest values are left out of it as long as they are many.
    """
    some = values
    while True:
        threshold = some.min()
        above = some > threshold
        count = int(np.count_nonzero(above))
        if keep > count:
            return threshold
        if count > 0.99 * some.size:
            return np.partition(some, some.size - keep)[some.size - keep]
        some = np.compress(above, some)


def top_counts(weights: Mapping[str, Tensor], keep: int) -> dict[str, int]:
    """Return how many of the `keep` largest magnitudes of all tensors together each has.

    Of equal ones those of earlier tensors are counted, and NaN as infinitely large.

    Args:
        weights: at least one, of any shapes, all on one device.
        keep: a count in [0, number of all entries].

    Raises:
        ValueError: if `keep` is out of range.
    """
    sizes = [weight.numel() for weight in weights.values()]
    device = next(iter(weights.values())).device
    if not 0 < keep < sum(sizes) or device.type != "cpu":
        scores = torch.cat([weight.detach().abs().reshape(-1) for weight in weights.values()])
        parts = torch.split(top_mask(scores, keep), sizes)
        return counts(dict(zip(weights, parts, strict=True)))
    flat = torch.empty(sum(sizes), dtype=_dtype_of(weights))  # no other copy of all is made
    layers = dict(zip(weights, torch.split(flat, sizes), strict=True))
    for name, weight in weights.items():
        layers[name].view(weight.shape).copy_(weight.detach()).abs_()
    flat.nan_to_num_(nan=_INF, posinf=_INF)
    threshold = _threshold(flat.numpy(), keep)
    found = {n: int(np.count_nonzero(layer.numpy() > threshold)) for n, layer in layers.items()}
    left = keep - sum(found.values())
    for name, layer in layers.items():
        ties = min(left, int(np.count_nonzero(layer.numpy() == threshold)))
        found[name] += ties
        left -= ties
    return found


def _dtype_of(weights: Mapping[str, Tensor]) -> torch.dtype:
    """Return a type that holds all values exactly, and that numpy has."""
    types = [torch.float32, *(weight.dtype for weight in weights.values())]
    return functools.reduce(torch.promote_types, types)


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

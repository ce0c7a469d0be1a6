"""Masks with exact counts: creation, comparison and packing."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gapbench.sparsity.counts import zeros_of
from gapbench.sparsity.joined import counted, worth_joining
from gapbench.sparsity.selection import lowest_kept, top_mask

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

K = TypeVar("K", bound=Hashable)  # names of layers

_INF = float("inf")


def top_counts(weights: Mapping[str, Tensor], keep: int) -> dict[str, int]:
    """Return how many of the `keep` largest magnitudes over all tensors lie in each tensor.

    Among equal magnitudes, earlier tensors win. NaN counts as infinitely large.

    Args:
        weights: at least one tensor by name, of any shapes, all on one device.
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
    threshold = lowest_kept(flat.numpy(), keep)
    found = {n: int(np.count_nonzero(layer.numpy() > threshold)) for n, layer in layers.items()}
    left = keep - sum(found.values())
    for name, layer in layers.items():
        ties = min(left, int(np.count_nonzero(layer.numpy() == threshold)))
        found[name] += ties
        left -= ties
    return found


def _dtype_of(weights: Mapping[str, Tensor]) -> torch.dtype:
    """Return a dtype that numpy has and that represents all values exactly."""
    types = [torch.float32, *(weight.dtype for weight in weights.values())]
    return functools.reduce(torch.promote_types, types)


def random_mask(shape: tuple[int, ...], keep: int, generator: torch.Generator) -> Tensor:
    """Return a uniformly random mask with exactly `keep` True entries.

    Args:
        shape: shape of the mask.
        keep: a count in [0, product of the shape].
        generator: a CPU generator; the mask is drawn on the CPU, the same for every device.

    Raises:
        ValueError: if `keep` is out of range.
    """
    numel = math.prod(shape)
    if not 0 <= keep <= numel:
        raise ValueError(f"cannot keep {keep} of {numel} weights")
    mask = torch.zeros(numel, dtype=torch.bool)
    mask[torch.randperm(numel, generator=generator)[:keep]] = True
    return mask.view(shape)


def counts(masks: Mapping[K, Tensor]) -> dict[K, int]:
    """Return the number of True entries of each mask; wait once for a device, not once per mask."""
    if worth_joining(list(masks.values())):
        return counted(masks)
    found: dict[K, int] = {}
    for device in {mask.device for mask in masks.values()}:
        own = {n: mask.count_nonzero() for n, mask in masks.items() if mask.device == device}
        found.update(zip(own, torch.stack(list(own.values())).tolist(), strict=True))
    return {name: found[name] for name in masks}


def digest(masks: Mapping[str, Tensor]) -> str:
    """Return a sha256 of names and masks that does not depend on their order."""
    names = sorted(masks)
    total = hashlib.sha256(repr([(name, tuple(masks[name].shape)) for name in names]).encode())
    if names:
        packed = torch.cat([pack(masks[name]) for name in names])  # one transfer for all layers
        total.update(packed.cpu().numpy().tobytes())
    return total.hexdigest()


def pack(mask: Tensor) -> Tensor:
    """Return a mask as a vector of uint8: eight entries per byte, row-major, zero-padded."""
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    return (padded.view(-1, 8) << _bits(mask.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the mask of `shape` that `pack` was given."""
    bits = (packed.unsqueeze(1) >> _bits(packed.device)) & 1
    return bits.view(-1)[: math.prod(shape)].bool().view(shape)


def _bits(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)

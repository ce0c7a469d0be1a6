"""Masks with exact counts: how they are made, compared and packed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

_ROUNDING = (
    1e-9  # what (1 - density) x N may lose to floating point before it is floored
)


def zeros_of(numel: int, density: float) -> int:
    """Return floor((1 - density) x numel), the zeros of a layer, robust to rounding errors."""
    exact = (1 - density) * numel
    return min(numel, max(0, math.floor(exact + _ROUNDING * max(1.0, exact))))


def top_mask(scores: Tensor, keep: int) -> Tensor:
    """Return the mask of the `keep` largest scores; of equal ones the lower index wins.

    One selection of the k-th value and one pass over the scores; the result is the same on every
    device, whatever order its top-k takes ties in.

    Args:
        scores: any shape, without NaN.
        keep: count in [0, scores.numel()].

    Returns:
        a boolean tensor of the scores' shape with exactly `keep` True entries.

    Raises:
        ValueError: if `keep` is out of range.
    """
    numel = scores.numel()
    if not 0 <= keep <= numel:
        raise ValueError(f"cannot keep {keep} of {numel} weights")
    if keep in (0, numel):
        return torch.full(
            scores.shape, keep == numel, dtype=torch.bool, device=scores.device
        )
    flat = scores.detach().reshape(-1)
    threshold = torch.kthvalue(flat, numel - keep + 1).values
    above = flat > threshold
    ties = flat == threshold
    missing = keep - above.sum()
    return (above | (ties & (ties.cumsum(0) <= missing))).view(scores.shape)


def random_mask(
    shape: tuple[int, ...], keep: int, generator: torch.Generator
) -> Tensor:
    """Return a uniformly random mask with exactly `keep` True entries, drawn on the CPU."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[torch.randperm(mask.numel(), generator=generator)[:keep]] = True
    return mask.view(shape)


def digest(masks: Mapping[str, Tensor]) -> str:
    """Return a sha256 of named masks, equal exactly when all masks are."""
    total = hashlib.sha256()
    for name in sorted(masks):
        total.update(f"{name}{tuple(masks[name].shape)}".encode())
        total.update(pack(masks[name]).cpu().numpy().tobytes())
    return total.hexdigest()


def pack(mask: Tensor) -> Tensor:
    """Return a mask as uint8, eight entries a byte in row-major order, zero-padded."""
    flat = mask.reshape(-1)
    padded = torch.nn.functional.pad(flat.to(torch.uint8), (0, -flat.numel() % 8)).view(
        -1, 8
    )
    return (padded << _bits(mask.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the mask of `shape` that `pack` was given."""
    bits = (packed.unsqueeze(1) >> _bits(packed.device)) & 1
    return bits.view(-1)[: math.prod(shape)].bool().view(shape)


def _bits(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)

"""Selection of a layer's largest scores, with the same result on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.floating[Any]]

_INF = float("inf")


def top_mask(scores: Tensor, keep: int) -> Tensor:
    """Return the mask of the `keep` largest scores; among equal scores the lower index wins.

    One selection finds the lowest kept score; comparisons with this score give the mask. So the
    order of equal scores in the selection does not matter, and every device gives the same mask.
    Nothing is sorted, and the host waits for no device. NaN counts as infinitely large, so a
    diverged weight stays visible.

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
    """Return the mask without reading a value from the device."""
    threshold = flat.topk(keep, sorted=False).values.amin()
    above, ties = flat > threshold, flat == threshold
    return above | (ties & (ties.cumsum(0) <= keep - above.sum()))


def _top_of_host(flat: Tensor, keep: int) -> Tensor:
    """Return the mask on the CPU, where numpy selects many times faster than torch."""
    if flat.element_size() < 4:
        flat = flat.float()  # exact; numpy has no bfloat16
    values = flat.numpy()
    threshold = lowest_kept(values, keep)
    mask = values >= threshold
    surplus = int(np.count_nonzero(mask)) - keep
    if surplus:
        mask[np.flatnonzero(values == threshold)[-surplus:]] = False
    return torch.from_numpy(mask)


def lowest_kept(values: FloatArray, keep: int) -> Any:
    """Return the lowest of the `keep` largest values.

    Masked entries and zero gradients of dead units are ties, which make numpy's partition twenty
    times slower. So the lowest values are left out of the partition as long as they are many.
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

"""Concatenation of layers into one vector, so that one kernel serves all layers.

For a small model, a GPU needs less time to change the masks than the host needs to launch kernels
for each layer. On the CPU there are no kernel launches, and layers are changed one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from gapbench.sparsity.selection import top_mask

LIMIT = 2**22  # weights of one vector: sorting takes some forty bytes for each

K = TypeVar("K", bound=Hashable)  # names of layers

_INF = float("inf")
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an entry


def worth_joining(tensors: Sequence[Tensor]) -> bool:
    """Say whether joining saves time: whether all tensors are on one GPU."""
    devices = {tensor.device for tensor in tensors}
    return len(devices) == 1 and devices.pop().type != "cpu"


def portions(layers: Mapping[K, Tensor]) -> Iterator[list[K]]:
    """Yield portions: names of layers that are changed together, one by one without joining.

    The layers of a portion have one dtype. A portion of several layers has at most `LIMIT` weights.
    """
    if not worth_joining(list(layers.values())):
        yield from ([name] for name in layers)
        return
    begun: dict[torch.dtype, list[K]] = {}
    for name, layer in layers.items():
        names = begun.setdefault(layer.dtype, [])
        if names and sum(layers[n].numel() for n in [*names, name]) > LIMIT:
            yield begun.pop(layer.dtype)
            names = begun.setdefault(layer.dtype, [])
        names.append(name)
    yield from begun.values()


class Joined:
    """The positions of layers in a vector.

    Args:
        layers: non-empty tensors of the layers' shapes, all on one device.
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        self._shapes = [layer.shape for layer in layers]
        self._sizes = [layer.numel() for layer in layers]
        self._ends = [sum(self._sizes[: index + 1]) for index in range(len(layers))]
        self._device = layers[0].device

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a vector with copies of the tensors, one per layer, row-major."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return a view of the vector for each layer, in the layer's shape."""
        parts = torch.split(vector, self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def largest(self, scores: Tensor, keep: Sequence[int]) -> Tensor:
        """Return the mask of the `keep[layer]` largest scores of each layer, as `top_mask` does.

        Raises:
            ValueError: if a count is out of range.
        """
        for count, size in zip(keep, self._sizes, strict=True):
            if not 0 <= count <= size:
                raise ValueError(f"cannot keep {count} of {size} weights")
        if len(keep) == 1:
            return top_mask(scores, keep[0])
        # -0.0 + 0.0 is 0.0: no sort may tell the two apart
        scores = scores.nan_to_num(nan=_INF, posinf=_INF, neginf=-_INF).add_(0.0)
        order = scores.argsort(descending=True, stable=True)
        numbers = torch.arange(len(keep), device=self._device)
        numbers = numbers.to(torch.uint8 if len(keep) <= 256 else torch.int32)
        layers = self._repeated(numbers)[order]
        order = order[layers.argsort(stable=True)]  # by layer, and by score in each
        starts = [end - size for end, size in zip(self._ends, self._sizes, strict=True)]
        stops = [start + count for start, count in zip(starts, keep, strict=True)]
        chosen = torch.arange(len(scores), device=self._device) < self._repeated(self._sent(stops))
        return torch.empty_like(chosen).scatter_(0, order, chosen)

    def counts(self, mask: Tensor) -> Tensor:
        """Return how many entries of each layer are True, on the device."""
        return mask.cumsum(0)[self._sent(self._ends) - 1].diff(prepend=self._sent([0]))

    def _repeated(self, values: Tensor) -> Tensor:
        """Return, for each entry of the vector, the value of the entry's layer."""
        return values.repeat_interleave(self._sent(self._sizes), output_size=self._ends[-1])

    def _sent(self, values: Sequence[int]) -> Tensor:
        """Return numbers as a tensor on the device, without waiting for the device."""
        return torch.tensor(values).to(self._device, non_blocking=True)


def top_masks(
    scores: Sequence[Tensor], keep: Sequence[int], inside: Sequence[Tensor | None]
) -> list[Tensor]:
    """Return the result of `top_mask` for each layer of a portion.

    Args:
        scores: scores of each layer.
        keep: number of positions that each layer keeps.
        inside: a mask of each layer, to which the kept positions are restricted, or None.
    """
    joined = Joined(scores)
    vector = joined.join(scores)
    if any(bound is not None for bound in inside):
        bounds = [
            torch.ones_like(score, dtype=torch.bool) if bound is None else bound
            for score, bound in zip(scores, inside, strict=True)
        ]
        vector.masked_fill_(~joined.join(bounds), -_INF)
    return joined.split(joined.largest(vector, keep))


def replaced(
    drop: Sequence[Tensor],
    masks: Sequence[Tensor],
    growth: Sequence[Tensor],
    kept: Sequence[int],
    grown: Sequence[int],
) -> list[Tensor]:
    """Return masks of a portion's layers with the largest drop scores kept and new positions grown.

    Args:
        drop: drop scores of each layer; the largest are kept.
        masks: the current masks.
        growth: growth scores of each layer; positions that are not kept compete.
        kept: number of positions that each layer keeps.
        grown: number of positions that each layer grows.
    """
    joined = Joined(drop)
    going, active, coming = (joined.join(each) for each in (drop, masks, growth))
    staying = joined.largest(going.masked_fill_(~active, -_INF), kept)
    new = joined.largest(coming.masked_fill_(staying, -_INF), grown)
    return joined.split(new.logical_or_(staying))


def intersected(masks: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return the intersections of a portion's masks with others, and the counts on the device."""
    if len(masks) == 1:
        both = masks[0] & others[0]
        return [both], both.count_nonzero()[None]
    joined = Joined(masks)
    inside = joined.join(masks).logical_and_(joined.join(others))
    return joined.split(inside), joined.counts(inside)


def clear_outside(masks: Sequence[Tensor], tensors: Sequence[Sequence[Tensor]]) -> None:
    """Set entries outside the masks to +0.0, finite or not; a product would leave -0.0 and NaN.

    Args:
        masks: masks of a portion's layers.
        tensors: tensors of each layer, of the layer's shape.
    """
    if len(masks) > 1 and len({tuple(tensor.dtype for tensor in own) for own in tensors}) == 1:
        joined = Joined(masks)
        keep = joined.join(masks).view(torch.int8).neg_()  # -1: all bits
        for family in zip(*tensors, strict=True):
            bits = list(map(_bits_of, family))
            torch._foreach_copy_(bits, joined.split(joined.join(bits).bitwise_and_(keep)))
        return
    for mask, own in zip(masks, tensors, strict=True):
        keep = mask.view(torch.int8).neg()
        for tensor in own:
            _bits_of(tensor).bitwise_and_(keep)


def _bits_of(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_BITS[tensor.element_size()])


def counted(masks: Mapping[K, Tensor]) -> dict[K, int]:
    """Return the number of True entries of each mask; wait once for the device."""
    names: list[K] = []
    found = []
    for portion in portions(masks):
        own = [masks[name] for name in portion]
        joined = Joined(own)
        found.append(joined.counts(joined.join(own)))
        names += portion
    numbers = dict(zip(names, torch.cat(found).tolist(), strict=True))
    return {name: numbers[name] for name in masks}

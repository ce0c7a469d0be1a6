"""Compression of masks to bytes near the entropy bound, for files and for exchange of masks.

Rice's code (Rice and Plaunt, 1971) encodes the distances between entries of the rarer kind. A
distance g becomes g >> k in unary, followed by its low k bits; k is the value that gives the fewest
bits. For random masks, which masks of pruned layers resemble, the code is within 4 % of the
entropy. For any mask the code takes at most one bit per entry. The code depends on no library's
version, so equal masks have equal bytes.
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapbench.errors import UserError

# whether the coded entries are the False ones; k; coded entries
_HEAD = struct.Struct("<?BQ")
_SUM = struct.Struct("<I")  # crc32 of the mask's size, the head and the bits


def encode(mask: Tensor) -> Tensor:
    """Return a boolean mask as a vector of uint8 on the CPU.

    The bytes are a checksum and a header (14 bytes), then all unary parts (a number of zeros, then
    a one), then all low bits. Unary parts and low bits are each padded with 0 to whole bytes. Bits
    fill bytes from the lowest bit.
    """
    flat = mask.detach().reshape(-1).cpu().numpy()
    inverted = 2 * np.count_nonzero(flat) > flat.size
    places = np.flatnonzero(~flat if inverted else flat)
    gaps = np.diff(places, prepend=-1) - 1
    low_bits = _cheapest(gaps)
    high = np.zeros(int((gaps >> low_bits).sum()) + gaps.size, dtype=np.uint8)
    high[np.cumsum((gaps >> low_bits) + 1) - 1] = 1
    low = ((gaps[:, None] >> np.arange(low_bits)) & 1).astype(np.uint8)
    head = _HEAD.pack(inverted, low_bits, gaps.size)
    told = head + b"".join(np.packbits(bits, bitorder="little").tobytes() for bits in (high, low))
    return torch.frombuffer(bytearray(_checksum(flat.size, told) + told), dtype=torch.uint8)


def decode(code: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the boolean mask of `shape` that `encode` was given, on the CPU.

    Raises:
        UserError: if the bytes are damaged, or encode a mask of another size.
    """
    whole, numel = code.cpu().numpy().tobytes(), math.prod(shape)
    checksum, told = whole[: _SUM.size], whole[_SUM.size :]
    if len(told) < _HEAD.size or checksum != _checksum(numel, told):
        raise UserError(f"the {len(whole)} bytes of a mask of {numel} entries are damaged")
    inverted, low_bits, count = _HEAD.unpack_from(told)
    split = len(told) - -(-count * low_bits // 8)
    high, low = _bits(told[_HEAD.size : split]), _bits(told[split:])
    gaps = (np.diff(np.flatnonzero(high), prepend=-1) - 1) << low_bits
    weights = np.left_shift(1, np.arange(low_bits))
    gaps += low[: count * low_bits].reshape(count, low_bits) @ weights
    flat = np.full(numel, inverted)
    flat[np.cumsum(gaps + 1) - 1] = not inverted
    return torch.from_numpy(flat).view(shape)


def _cheapest(gaps: NDArray[np.int64]) -> int:
    """Return the number of low bits that gives the shortest code, about log2 of the mean gap."""
    if gaps.size == 0:
        return 0
    near = max(1, int(math.log2(1 + gaps.mean())))
    tried = (0, near - 1, near, near + 1)
    return min(tried, key=lambda k: (int((gaps >> k).sum()) + gaps.size * (k + 1), k))


def _bits(packed: bytes) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")


def _checksum(numel: int, told: bytes) -> bytes:
    return _SUM.pack(zlib.crc32(told, zlib.crc32(str(numel).encode())))

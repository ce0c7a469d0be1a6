"""Named random streams: every random decision of a trial follows from the trial's seed.

The address of a stream is its purpose (`"data", epoch`), not the number of earlier draws. So the
order of the data does not depend on the method, rows with the same seed see the same order, and a
resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
import random


def stream_seed(seed: int, *path: str | int) -> int:
    """Return the 63-bit seed of the stream `path` under a trial's `seed`.

    Raises:
        ValueError: if `path` is empty.
    """
    if not path:
        raise ValueError("a stream needs a name")
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *path: str | int) -> random.Random:
    """Return a `random.Random` positioned at the start of the stream `path`."""
    return random.Random(stream_seed(seed, *path))

"""A run's history: a JSON line an epoch or mask change, the same however often it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class History:
    """An append-only JSONL file that goes back to where a checkpoint was written.

    Args:
        path: the file.
        offset: bytes that the checkpoint vouches for; what lies behind them is cut off.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._file.truncate(offset)

    def append(self, line: dict[str, Any]) -> None:
        """Add one line; it reaches the disk with the next `sync`."""
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def sync(self) -> int:
        """Force all lines to the disk and return the file's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._file.close()

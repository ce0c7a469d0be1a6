"""A run's history: a JSON line an epoch or mask change, the same however often it stopped."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from gapbench.errors import UserError


class History:
    """An append-only JSONL file that goes back to where a checkpoint was written.

    The lines that are kept move to a new file of the same name, so that an earlier copy of the run,
    should one be alive somewhere, goes on writing where nobody reads.

    Args:
        path: the file.
        offset: bytes that the checkpoint vouches for; what lies behind them is cut off.

    Raises:
        UserError: if the file is shorter than that.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        kept = path.read_bytes()[:offset] if offset and path.exists() else b""
        if len(kept) < offset:
            raise UserError(f"{path}: shorter than its checkpoint says; start over with --force")
        fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        self._file = open(fresh, "wb")  # noqa: SIM115 - closed by close()
        self._file.write(kept)
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(fresh, path)

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

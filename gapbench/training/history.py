"""A run's history: one JSON line per epoch or mask change, the same after any number of stops."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from gapbench.base.documents import TEXT_BYTES, open_plain
from gapbench.errors import UserError


class History:
    """An append-only JSONL file, which is truncated to the length that a checkpoint states.

    The kept lines move to a new file of the same name. So an earlier copy of the run that is still
    alive writes to the old file, which nobody reads.

    Args:
        path: the file.
        offset: length in bytes that the checkpoint states; later bytes are cut off.
        digest: sha256 of these bytes, or None for checkpoints of earlier versions.

    Raises:
        UserError: if the file does not begin with these bytes.
    """

    def __init__(self, path: Path, offset: int = 0, digest: str | None = None) -> None:
        kept = _first_bytes(path, offset) if offset else b""
        if len(kept) < offset:
            raise UserError(f"{path}: shorter than its checkpoint says: start over with --force")
        self._sha256 = hashlib.sha256(kept)
        if digest is not None and digest != self.digest:
            raise UserError(f"{path}: changed since its checkpoint: start over with --force")
        fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        self._file = open(fresh, "wb")  # noqa: SIM115 - closed by close()
        self._file.write(kept)
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(fresh, path)

    @property
    def digest(self) -> str:
        """The sha256 of all lines, as hex digits."""
        return self._sha256.hexdigest()

    def append(self, line: dict[str, Any]) -> None:
        """Add one line; the next `sync` writes the line to the disk."""
        text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        self._file.write(text)
        self._sha256.update(text)

    def sync(self) -> int:
        """Force all lines to the disk and return the file's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Write buffered lines and close the file."""
        self._file.close()


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with open_plain(path, TEXT_BYTES) as file:
            return file.read(count)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None

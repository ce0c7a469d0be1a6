"""Checkpoints: one file with everything that a run needs to continue with the same bits."""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gapbench.base.documents import open_plain, replacing
from gapbench.errors import UserError

SCHEMA = 2


def save(path: Path, state: dict[str, Any], allow: Callable[[], None] | None = None) -> None:
    """Write `state` atomically: at any time `path` is the whole old or the whole new checkpoint.

    Args:
        path: the checkpoint file.
        state: content of the checkpoint.
        allow: function that is called before the new checkpoint replaces the old one; an exception
            in it keeps the old checkpoint.
    """
    with replacing(path) as file:
        torch.save({"schema": SCHEMA, **state}, file)
        file.flush()
        os.fsync(file.fileno())
        if allow is not None:
            allow()


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint, and check every byte.

    Raises:
        UserError: if the file cannot be read, is damaged, or has another schema.
    """
    state = read(path, device)
    if state.get("schema") != SCHEMA:
        raise _refused(path, f"its schema is {state.get('schema')}, not {SCHEMA}")
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Report errors in a block that uses a checkpoint's content as damage of the file.

    Raises:
        UserError: naming the file.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise _refused(path, _first_words(error)) from None


def read(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a file of `torch.save`, and check every byte.

    Raises:
        UserError: if the file cannot be read, is damaged, or contains no dict.
    """
    try:
        file = open_plain(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        with file:
            _check(zipfile.ZipFile(file))
            file.seek(0)
            state = torch.load(file, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # these come from places that do not exist
            raise _unreadable(path, error) from None
        raise _refused(path, _first_words(error)) from None
    except (
        TypeError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        NotImplementedError,
    ) as error:
        raise _refused(path, _first_words(error)) from None
    return state


def _check(archive: zipfile.ZipFile) -> None:
    """Check every byte of an archive of uncompressed entries."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise zipfile.BadZipFile("it is compressed")
    damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"bad checksum in {damaged}")


def _first_words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(":")


def _unreadable(path: Path, error: OSError) -> UserError:
    """Return an error without advice to start over: the file may be intact."""
    return UserError(f"{path}: cannot be read: {error.strerror or error}")


def _refused(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: is damaged ({reason}); run again with --force to start over")

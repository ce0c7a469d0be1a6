"""Files of run folders, read and written as if somebody else had made what is there.

A results folder may be shared or downloaded. The run folder itself may be a link, which its user
made; below it only plain files in real folders count, so that nothing leads out of it, waits for
ever or fills the memory. A JSON document carries a checksum, which its reader requires to fit.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gapbench.errors import UserError

CHECKSUM = "checksum"
DOCUMENT_BYTES = 16 * 2**20
TEXT_BYTES = 256 * 2**20  # of a history
DIGITS = 18  # of an integer: it fits into 64 bits

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def open_plain(path: Path, limit: int | None = None) -> IO[bytes]:
    """Open a plain file to read its bytes; neither a link nor a pipe is one.

    Args:
        path: the file, in a folder that is trusted: see `require_real`.
        limit: the most bytes that it may have.

    Raises:
        OSError: if it is absent, cannot be read, is no plain file or has more bytes.
    """
    # without O_NONBLOCK a pipe that nobody writes to would be waited for
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(_open(path, flags), "rb")
    size = os.fstat(file.fileno()).st_size
    if limit is not None and size > limit:
        file.close()
        raise OSError(errno.EFBIG, f"has {size:,} bytes, more than {limit:,}", str(path))
    return file


def append_plain(path: Path) -> IO[bytes]:
    """Open a plain file to write behind its end; it need not exist.

    Raises:
        OSError: if it cannot be written or is no plain file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(_open(path, flags), "ab")


def _open(path: Path, flags: int) -> int:
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO) and not is_plain(path):
            raise _not_plain(path) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _not_plain(path)
    return number


def _not_plain(path: Path) -> OSError:
    return OSError(errno.EINVAL, "is no plain file, and is not followed", str(path))


def is_plain(path: Path) -> bool:
    """Say whether `path` is a file of its folder; links could lead anywhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def require_real(path: Path, root: Path) -> None:
    """Check that no part of `path` below `root` is a link; parts need not exist.

    Raises:
        UserError: naming the link.
    """
    for part in (path, *path.parents):
        if part == root:
            return
        if part.is_symlink():
            raise UserError(f"{part}: is a link: only real folders and files are used here")


# -- text ----------------------------------------------------------------------------------------


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Return the text of a plain file; bytes that are no UTF-8 are replaced.

    Raises:
        OSError: as `open_plain`.
    """
    with open_plain(path, limit) as file:
        return file.read().decode(errors="replace")


def write_text(path: Path, text: str) -> None:
    """Write `text` so that `path` always holds a whole file, and what it led to stays.

    Raises:
        OSError: if it cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `path` when the block has ended well.

    Args:
        path: the file.
        durable: whether to wait until it would survive a loss of power.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(partial, "xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


# -- JSON ----------------------------------------------------------------------------------------


def write_json(path: Path, value: Mapping[str, Any], durable: bool = True) -> None:
    """Write `value` with its checksum so that `path` always holds one whole document.

    Args:
        path: the file.
        value: its content.
        durable: whether to wait until it would survive a loss of power.
    """
    with replacing(path, durable) as file:
        file.write(json.dumps(sealed(value), indent=1).encode() + b"\n")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its checksum."""
    content = {name: inner for name, inner in value.items() if name != CHECKSUM}
    return {**content, CHECKSUM: _checksum(content)}


def opened(value: object) -> dict[str, Any]:
    """Return a document without its checksum; those of earlier versions have none.

    Raises:
        ValueError: if it is no object, or its checksum does not fit.
    """
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    content = {name: inner for name, inner in value.items() if name != CHECKSUM}
    if value.get(CHECKSUM) not in (None, _checksum(content)):
        raise ValueError("its checksum does not fit its content")
    return content


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the document in `path`, or None if it is absent, damaged or no object."""
    try:
        return read_document(path)
    except (OSError, ValueError):
        return None


def read_document(path: Path) -> dict[str, Any]:
    """Return the document in `path`, without its checksum.

    Raises:
        OSError: as `open_plain`.
        ValueError: if it is damaged, no object, or holds what JSON files of ours never do.
    """
    with open_plain(path, DOCUMENT_BYTES) as file:
        return opened(parse(file.read()))


def parse(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is none, is nested too deeply, or has an integer beyond 64 bits or a text
            that cannot be written.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _SURROGATE.search(text if isinstance(text, bytes) else text.encode()):
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"{digits[:DIGITS]}... is too large")
    return int(digits)


def _checksum(value: Mapping[str, Any]) -> str:
    """Return 16 hex digits of the sha256 of the content, however it is laid out."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

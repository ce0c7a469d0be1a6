"""Reading and writing the files of run folders, whose content is not trusted.

A results folder may be shared or downloaded. The run folder itself may be a link that its user
made. Below the run folder, only plain files in real folders are accepted: no path leads out of the
run folder, no read waits for ever, and no file fills the memory. Each JSON document has a checksum,
which the reader verifies.
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
    """Open a plain file (not a link, not a pipe) to read its bytes.

    Args:
        path: the file, in a trusted folder: see `require_real`.
        limit: the maximum size of the file in bytes.

    Raises:
        OSError: if the file is absent, unreadable, not a plain file, or larger than `limit`.
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
    """Open a plain file to append bytes; the file need not exist.

    Raises:
        OSError: if the file cannot be written or is not a plain file.
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
    return OSError(errno.EINVAL, "is not a plain file, and is not followed", str(path))


def is_plain(path: Path) -> bool:
    """Say whether `path` is a plain file; a link is not, since a link could lead anywhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def require_real(path: Path, root: Path) -> None:
    """Check that no part of `path` below `root` is a link; the parts need not exist.

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
    """Return the text of a plain file; bytes that are not UTF-8 are replaced.

    Raises:
        OSError: as for `open_plain`.
    """
    with open_plain(path, limit) as file:
        return file.read().decode(errors="replace")


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically; if `path` is a link, the link is replaced and its target stays.

    Raises:
        OSError: if the file cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` when the block ends without an exception.

    Args:
        path: the file.
        durable: whether to wait until the file would survive a loss of power.
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
    """Write `value` with its checksum; at any time `path` holds one whole document.

    Args:
        path: the file.
        value: content of the document.
        durable: whether to wait until the file would survive a loss of power.
    """
    with replacing(path, durable) as file:
        file.write(json.dumps(sealed(value), indent=1).encode() + b"\n")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its checksum."""
    content = {name: inner for name, inner in value.items() if name != CHECKSUM}
    return {**content, CHECKSUM: _checksum(content)}


def opened(value: object) -> dict[str, Any]:
    """Return a document without its checksum; documents of earlier versions have no checksum.

    Raises:
        ValueError: if the document is not a JSON object, or its checksum does not match.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    content = {name: inner for name, inner in value.items() if name != CHECKSUM}
    if value.get(CHECKSUM) not in (None, _checksum(content)):
        raise ValueError("its checksum does not match its content")
    return content


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the document in `path`, or None if the file is absent, damaged or no JSON object."""
    try:
        return read_document(path)
    except (OSError, ValueError):
        return None


def read_document(path: Path) -> dict[str, Any]:
    """Return the document in `path`, without its checksum.

    Raises:
        OSError: as for `open_plain`.
        ValueError: if the document is damaged, is no JSON object, or has a value that `parse`
            refuses.
    """
    with open_plain(path, DOCUMENT_BYTES) as file:
        return opened(parse(file.read()))


def parse(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if the text is not JSON, is nested too deeply, or has an integer beyond 64 bits
            or a string that cannot be written.
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
    """Return 16 hex digits of the sha256 of the content, whatever its layout in the file."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

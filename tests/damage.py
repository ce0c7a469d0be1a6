"""Every way in which a file of a run folder can be damaged, for tests."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HUGE = 40 * 2**30  # bytes; on the disk it takes none
DEEP = 100_000

Damage = Callable[[Path, random.Random], object]


def damages(outside: Path) -> dict[str, Damage]:
    """Return what can happen to a file, by name.

    Args:
        outside: a folder that links lead to, with the file `secret` and the folder `tree`.
    """

    def link(target: Path) -> Damage:
        return lambda path, rng: path.symlink_to(target)

    return {
        "absent": lambda path, rng: None,
        "empty": lambda path, rng: path.touch(),
        "cut": _cut,
        "flipped": _flipped,
        "bytes": lambda path, rng: path.write_bytes(rng.randbytes(200)),
        "list": lambda path, rng: path.write_text("[1, 2]"),
        "types": _types,
        "values": _values,
        "huge": lambda path, rng: (path.touch(), os.truncate(path, HUGE)),
        "nested": lambda path, rng: path.write_text(f'{{"a":{"[" * DEEP}{"]" * DEEP}}}'),
        "link": link(outside / "secret"),
        "link to a folder": link(outside / "tree"),
        "link to nothing": link(outside / "made"),
        "link to a device": link(Path("/dev/zero")),
        "pipe": lambda path, rng: os.mkfifo(path),
        "folder": lambda path, rng: (path.mkdir(), (path / "inner").write_text("x")),
    }  # fmt: skip


def damage(path: Path, how: Damage, rng: random.Random) -> None:
    """Put something damaged in the place of a file or an empty folder, which need not be there.

    What was there is given to `how` as the file `.was` beside it, if it was a file.
    """
    was = path.with_name(".was")
    if path.is_dir():
        path.rmdir()
    elif path.exists():
        path.rename(was)
    how(path, rng)
    was.unlink(missing_ok=True)


def _before(path: Path) -> bytes:
    was = path.with_name(".was")
    return was.read_bytes() if was.exists() else b'{"key": 1}'


def _cut(path: Path, rng: random.Random) -> None:
    before = _before(path)
    path.write_bytes(before[: rng.randrange(len(before))] if before else b"")


def _flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(_before(path) or b"x")
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 1e999, float("nan"), "", "word", "a\rb\x1b]0;title\x07", "../../outside",
    "--user=root", [], [None], {}, {"a": []}, {"a": {"b": "c"}},
)  # fmt: skip
# what JSON allows and no document of ours holds, as text
ODD = ("9" * 400, '"\\ud800"', '"' + "x" * 200_000 + '"', "-Infinity", '"\\u0000"')


def _types(path: Path, rng: random.Random) -> None:
    """Give one value of a document another type; its checksum, if it has one, is left out."""
    path.write_text(json.dumps(_changed(_document(path), rng, rng.choice(WRONG))))


def _values(path: Path, rng: random.Random) -> None:
    mark = "<the value>"
    text = json.dumps(_changed(_document(path), rng, mark))
    path.write_text(text.replace(json.dumps(mark), rng.choice(ODD)))


def _document(path: Path) -> Any:
    try:
        document = json.loads(_before(path))
    except ValueError:
        return {"key": 1}
    if isinstance(document, dict):
        document.pop("checksum", None)
    return document


def _changed(document: Any, rng: random.Random, value: Any) -> Any:
    """Return a document with another value at one of its places, chosen by `rng`."""
    holder, name = rng.choice(list(_places(document)) or [(None, None)])
    if holder is None:
        return value
    holder[name] = value
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    names = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for name in list(names):
        yield value, name
        yield from _places(value[name])

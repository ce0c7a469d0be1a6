"""Ablation files: YAML 1.2 to plain values, each with the line it stands on."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from gapbench.errors import UserError

Keys = tuple[str | int, ...]
Lines = Mapping[Keys, int]
MOST_SEEDS = 10_000  # more would be a slip of the hand


@dataclass(frozen=True, eq=False)
class Document:
    """Values from one place that a person wrote: a file, or the options of a command.

    Attributes:
        name: the file's path as it was given, or "--set".
        data: the values, as YAML 1.2 reads them.
        lines: line (from 1) of every key and item; empty for a command.
    """

    name: str
    data: dict[str, Any]
    lines: Lines

    def problem(self, keys: Sequence[str | int], message: str) -> UserError:
        """Return the one-line error about the value at `keys`: file, line, key, what to do."""
        place = tuple(keys)
        while place and place not in self.lines:
            place = place[:-1]
        line = f"{self.lines[place]}: " if place else ""
        words = dotted(keys)
        return UserError(f"{self.name}:{line or ' '}{words}{': ' if words else ''}{message}")

    def has(self, keys: Keys) -> bool:
        """Say whether a value stands at `keys`."""
        return keys in self.lines


def dotted(keys: Sequence[str | int]) -> str:
    """Return the path of a value as people write it: trials[0].recipe.lr."""
    words = ""
    for key in keys:
        words += f"[{key}]" if isinstance(key, int) else f".{key}" if words else str(key)
    return words


def load(file: Path) -> Document:
    """Read one YAML file.

    Raises:
        UserError: if it cannot be read, is no valid YAML (a key twice is not) or no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{file}: cannot be read: {reason}") from None
    try:
        data = _reader("safe").load(io.StringIO(text))
        marked = _reader("rt").load(io.StringIO(text))
        lines = dict(_lines(marked, ()))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{mark.line + 1}: " if mark is not None else " "
        raise UserError(f"{file}:{line}broken YAML: {_words(error.problem)}") from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{file}: broken YAML: {_words(error)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{file}: an ablation is a mapping of keys (name, scales, trials, ...)")
    return Document(str(file), data, lines)


def _words(problem: object) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__


def _reader(kind: str) -> YAML:
    return YAML(typ=kind, pure=True)


def _lines(node: Any, place: Keys) -> Iterator[tuple[Keys, int]]:
    """Yield the line of every key and item under a node of the round-trip loader."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            at = (*place, key)
            yield at, _line(node, key)
            yield from _lines(value, at)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            at = (*place, number)
            yield at, _line(node, number)
            yield from _lines(value, at)


def _line(node: Any, key: object) -> int:
    marks = node.lc.data or {}  # keys that a merge (<<) brought in have no mark of their own
    return int(marks[key][0] if key in marks else node.lc.line) + 1


def read_set(words: Sequence[str]) -> Document:
    """Return what `--set KEY=VALUE` options say: dotted keys, values as YAML 1.2 reads them.

    Raises:
        UserError: if an option is no KEY=VALUE, or gives a key twice.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set: {word!r} is no KEY=VALUE, such as recipe.lr=0.05")
        if key.strip() in values:
            raise UserError(f"--set: {key.strip()} is given twice")
        values[key.strip()] = read_value("--set", text)
    return Document("--set", values, {})


def read_value(option: str, text: str) -> Any:
    """Return one value as YAML 1.2 reads it."""
    try:
        return _reader("safe").load(io.StringIO(text))
    except (YAMLError, ValueError):
        raise UserError(f"{option}: {text!r} is no YAML value") from None


def read_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that `--seeds` names: `3` is 0, 1, 2; `0-4` is a range; `0,3` a list.

    Raises:
        UserError: if it is none of these, or names too many.
    """
    counted = "," not in text and "-" not in text
    try:
        parts = [part.split("-", 1) for part in text.split(",")]
        ranges = [range(int(part[0]), int(part[-1]) + 1) for part in parts]
        ranges = [range(int(text))] if counted else ranges
    except ValueError:
        ranges = []
    found = sum(max(0, seeds.stop - seeds.start) for seeds in ranges)  # len() has a limit
    if not found:
        raise UserError(f"--seeds: {text!r} is not valid: give 6 (that many), 0-4 or 0,3")
    if found > MOST_SEEDS:
        raise UserError(f"--seeds: {text!r} are {found:,} seeds: give at most {MOST_SEEDS:,}")
    return tuple(dict.fromkeys(itertools.chain(*ranges)))

"""Reading of ablation files: YAML 1.2 to plain values, each with its line number."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import CollectionNode, ScalarNode

from gapbench.errors import UserError

Keys = tuple[str | int, ...]
Lines = Mapping[Keys, int]
MOST_SEEDS = 10_000  # more would be a slip of the hand
LAST_SEED = 2**32 - 1
MOST_BYTES = 256 * 1024  # of a file; reading them takes some seconds
MOST_VALUES = 20_000  # in a file, those behind aliases counted as often as they are used
MOST_LEVELS = 32
# errors that a YAML reader raises, beside its own errors, for values that do not match their tags
UNFIT = (RecursionError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, eq=False)
class Document:
    """Values from one source that a person wrote: a file, or the options of a command.

    Attributes:
        name: the file's path as given, or "--set".
        data: the values, as YAML 1.2 reads them.
        lines: line number (from 1) of every key and item; empty for a command.
    """

    name: str
    data: dict[str, Any]
    lines: Lines

    def problem(self, keys: Sequence[str | int], message: str) -> UserError:
        """Return the one-line error about the value at `keys`: file, line, key, remedy."""
        place = tuple(keys)
        while place and place not in self.lines:
            place = place[:-1]
        line = f"{self.lines[place]}: " if place else ""
        words = dotted(keys)
        return UserError(f"{self.name}:{line or ' '}{words}{': ' if words else ''}{message}")

    def has(self, keys: Keys) -> bool:
        """Say whether there is a value at `keys`."""
        return keys in self.lines


def dotted(keys: Sequence[str | int]) -> str:
    """Return the path of a value in dotted form, such as trials[0].recipe.lr."""
    words = ""
    for key in keys:
        words += f"[{key}]" if isinstance(key, int) else f".{key}" if words else str(key)
    return words


def load(file: Path, others: str = "") -> Document:
    """Read one YAML file; where there is none, the error ends with `others`.

    Raises:
        UserError: if the file cannot be read, is no valid YAML (duplicate keys are invalid), or is
            no mapping.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{file}: is too large: an ablation has at most {MOST_BYTES:,} bytes")
        text = content.decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        more = others if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"{file}: cannot be read: {reason}{more}") from None
    try:
        # a name that is given twice means the last, as YAML says
        warnings.simplefilter("ignore", ReusedAnchorWarning)
        reader = _reader("safe")
        _require_small(reader.compose(io.StringIO(text)), reader)
        data = _reader("safe").load(io.StringIO(text))
        marked = _reader("rt").load(io.StringIO(text))
        lines = dict(_lines(marked, ()))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{mark.line + 1}: " if mark is not None else " "
        raise UserError(f"{file}:{line}broken YAML: {_words(error.problem)}") from None
    except (YAMLError, *UNFIT) as error:
        raise UserError(f"{file}: broken YAML: {_words(error)}") from None
    if not isinstance(data, dict):
        raise UserError(
            f"{file}: an ablation is a mapping of keys: `gapbench new ablation NAME` writes one"
        )
    document = Document(str(file), data, lines)
    _require_text(document, data, ())
    return document


def _require_small(root: Any, reader: YAML) -> None:
    """Check the number of values under a node before their construction: aliases multiply values.

    Raises:
        ValueError: if the values are too many or nested too deeply, or if a value contains itself.
        MarkedYAMLError: if a value does not match its tag.
    """
    sizes: dict[int, int] = {}

    def size(node: Any, above: tuple[int, ...]) -> int:
        if id(node) in above:
            raise ValueError("an alias stands inside its own value")
        if len(above) > MOST_LEVELS:
            raise ValueError(f"values are nested in more than {MOST_LEVELS} levels")
        if id(node) not in sizes:
            if isinstance(node, ScalarNode):
                _require_fit(node, reader)
            inner = node.value if isinstance(node, CollectionNode) else ()
            pairs = (item if isinstance(item, tuple) else (item,) for item in inner)
            parts = itertools.chain.from_iterable(pairs)
            sizes[id(node)] = 1 + sum(size(part, (*above, id(node))) for part in parts)
        return sizes[id(node)]

    if root is not None and size(root, ()) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")


def _require_fit(node: ScalarNode, reader: YAML) -> None:
    try:
        reader.constructor.construct_object(node)
    except UNFIT:  # of these it does not tell the place
        told = f"{node.value[:40]!r} is no {str(node.tag).rpartition(':')[2]}"
        raise ConstructorError(problem=told, problem_mark=node.start_mark) from None


def _require_text(document: Document, value: Any, keys: Keys) -> None:
    """Check that texts are printable, and that keys are texts."""
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        raise document.problem(keys, f"{value[:40]!a} has characters that cannot be printed")
    inner = value.items() if isinstance(value, dict) else ()
    for key, held in [*inner, *(enumerate(value) if isinstance(value, list) else ())]:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise document.problem(keys, f"{key!r} is not a key: give text")
            _require_text(document, key, keys)
        _require_text(document, held, (*keys, key))


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
    """Return the settings of `--set KEY=VALUE` options: dotted keys, and values in YAML 1.2.

    Raises:
        UserError: if an option is not KEY=VALUE, or repeats a key.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set: {word!r} is not KEY=VALUE, such as recipe.lr=0.05")
        if not text.strip():
            raise UserError(f"--set: {key.strip()} has no value: give null for none")
        if key.strip() in values:
            raise UserError(f"--set: {key.strip()} is given twice")
        values[key.strip()] = read_value("--set", text)
    return Document("--set", values, {})


def read_value(option: str, text: str) -> Any:
    """Return one value as YAML 1.2 reads it."""
    try:
        return _reader("safe").load(io.StringIO(text))
    except (YAMLError, *UNFIT):
        raise UserError(f"{option}: {text!r} is not a YAML value") from None


def read_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that `--seeds` names: `3` is 0, 1, 2; `0-4` is a range; `0,3` a list.

    Raises:
        UserError: if the text has none of these forms, or names too many seeds.
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
        raise UserError(
            f"--seeds: {text!r} is not valid: give a count (6), a range (0-4) or a list (0,3)"
        )
    if found > MOST_SEEDS:
        raise UserError(f"--seeds: {text!r} means {found:,} seeds: give at most {MOST_SEEDS:,}")
    if max(seeds.stop for seeds in ranges) > LAST_SEED + 1:
        raise UserError(f"--seeds: {text!r}: give seeds of 0 to {LAST_SEED}")
    return tuple(dict.fromkeys(itertools.chain(*ranges)))

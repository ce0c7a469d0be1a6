"""Picking trials by patterns: `--only`, and `only` of an include."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from gapbench.errors import UserError, choose
from gapbench.spec.loading import read_value
from gapbench.spec.schema import epochs_of, is_multiple


def matches(fields: Mapping[str, Any], patterns: Sequence[str]) -> bool:
    """Say whether a trial matches all patterns.

    A pattern is `key=value`, or the name of a method, row or task. Shell wildcards are allowed, and
    commas separate alternatives: `c_gap,rigl` or `partitions=1,4`. The value `none` matches trials
    without such a setting: `partitions=4,none`.
    """
    return all(_matches_one(fields, pattern) for pattern in patterns)


def _matches_one(fields: Mapping[str, Any], pattern: str) -> bool:
    key, equals, values = pattern.partition("=")
    if equals:
        texts = [str(in_epochs(key, text, fields)) for text in values.split(",")]
        if fields.get(key) is None and "none" in texts:
            return True
        if key not in fields:
            return False
        return any(_equal(fields[key], text) for text in texts)
    names = [str(fields[name]).lower() for name in ("method", "label", "task")]
    wanted = pattern.lower().split(",")
    return any(fnmatchcase(name, want.strip()) for name in names for want in wanted)


def in_epochs(name: str, value: object, fields: Mapping[str, Any]) -> object:
    """Return a multiple of a task's epochs, such as 5x, as epochs; keep other values."""
    if name == "epochs" and isinstance(value, str) and is_multiple(value):
        return epochs_of(value, fields["recipe.epochs"])
    return value


def _equal(value: object, text: str) -> bool:
    return bool(fnmatchcase(str(value), text) or _read(text) == value)


@cache
def _read(text: str) -> Any:
    return read_value("--only", text)


def names_in(patterns: Sequence[str]) -> list[str]:
    """Return the names in `patterns`, such as `c_gap,rigl`, each of which must match a trial.

    Values of settings are left out: `partitions=4,3` matches trials with either value.
    """
    return [word.strip() for p in patterns if "=" not in p for word in p.split(",")]


def require_known_fields(
    option: str, patterns: Sequence[str], trials: Sequence[Mapping[str, Any]]
) -> None:
    """Check that the key of every `key=value` is a setting of some trial.

    Raises:
        UserError: if a key is not a setting; the message names the settings.
    """
    keys = [key for key, equals, _ in (pattern.partition("=") for pattern in patterns) if equals]
    if not keys or not trials:
        return
    known = {key for fields in trials for key in fields}
    for key in keys:
        if key not in known:
            raise UserError(f"{option}: {choose('setting', key, known)}")

"""The one exception for mistakes a user can correct."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable

LISTED = (  # by `gapbench list`, in the plural
    "method", "task", "distribution", "pattern", "update", "score", "transform", "executor",
    "figure",
)  # fmt: skip
MOST_LISTED = 60  # characters of names beside the likely one


class UserError(Exception):
    """Bad input: shown as one line, without a traceback, with exit code 2."""


class NotInstalled(UserError):
    """A package that some tasks need is not installed; the message says how to install it."""


class NothingFound(UserError):
    """There is nothing of what was asked for here, but there may be in other files."""


def choose(kind: str, given: str, valid: Iterable[str]) -> str:
    """Return one line that says `given` is no valid `kind`, and which choices there are."""
    names = sorted(valid)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) or "none"
    if near and kind in LISTED and len(listed) > MOST_LISTED:
        listed = textwrap.shorten(listed, MOST_LISTED, placeholder=" ...")
        listed += f": `gapbench list {kind}s` lists them"
    return f"unknown {kind} {given!r}: {hint}valid: {listed}"

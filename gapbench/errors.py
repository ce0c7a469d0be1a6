"""Exceptions for mistakes that a user can correct."""

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
    """Bad input: the command prints one line without a traceback and exits with code 2."""


class NotInstalled(UserError):
    """A task needs a package that is not installed; the message says how to install the package."""


class NothingFound(UserError):
    """No trial of this ablation matches the request; other ablation files may have matches."""


def choose(kind: str, given: str, valid: Iterable[str]) -> str:
    """Return a one-line message that `given` is no valid `kind`, with the valid choices."""
    names = sorted(valid)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) or "none"
    if near and kind in LISTED and len(listed) > MOST_LISTED:
        listed = textwrap.shorten(listed, MOST_LISTED, placeholder=" ...")
        listed += f": `gapbench list {kind}s` lists them"
    return f"unknown {kind} {given!r}: {hint}valid: {listed}"

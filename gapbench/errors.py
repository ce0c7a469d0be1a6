"""The one exception for mistakes a user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    return f"unknown {kind} {given!r}: {hint}valid: {', '.join(names) or 'none'}"

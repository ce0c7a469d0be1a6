"""Exceptions for mistakes that a user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    return f"unknown {kind} {given!r}: {hint}valid: {', '.join(names) or 'none'}"

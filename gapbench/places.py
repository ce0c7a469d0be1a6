"""Folders of the user's: what `~` means, and where it means nothing."""

from __future__ import annotations

import os
from pathlib import Path

from gapbench.errors import UserError


def expanded(path: Path) -> Path:
    """Return a path with the user's home folder in the place of `~`.

    Raises:
        UserError: if the user has none, as in containers that know no name for their user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{path}: this user has no home folder: set HOME") from None


def below_home(variable: str, usual: str) -> Path:
    """Return this package's folder below the one that `variable` names, or below `usual`.

    Raises:
        UserError: as `expanded`.
    """
    return expanded(Path(os.environ.get(variable) or usual)) / "gapbench"

"""Folders: what `~` means, and where it means nothing; where the ablations are that come along."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from gapbench.errors import UserError

DATA = "GAPBENCH_DATA"


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


def data_folders(given: Path | None = None) -> list[Path]:
    """Return where data sets may lie: what is given, $GAPBENCH_DATA, and the cache, in this order.

    What is fetched is kept in the first.

    Raises:
        UserError: as `expanded`.
    """
    named = os.environ.get(DATA)
    folders = [folder for folder in (given, Path(named) if named else None) if folder is not None]
    return [*map(expanded, folders), below_home("XDG_CACHE_HOME", "~/.cache")]


def shipped() -> Path:
    """Return the folder that has the ablations/ and baselines/ which come with this package.

    Installed, they are data of the distribution; in a checkout they lie beside the package.
    """
    beside = Path(__file__).parents[2]
    installed = Path(sysconfig.get_path("data")) / "share" / "gapbench"
    return beside if (beside / "ablations").is_dir() else installed


def ablation_file(given: Path) -> Path:
    """Return the file of an ablation: a path as it is, a bare name from here or from the package.

    A name such as `partitions` is that of ablations/partitions.yaml in this folder, else in
    `shipped`. What is nowhere is returned as it is.
    """
    if given.suffix or len(given.parts) != 1 or given.exists():
        return given
    places = (Path("ablations"), shipped() / "ablations")
    files = (place / f"{given}.yaml" for place in places)
    return next((file for file in files if file.is_file()), given)

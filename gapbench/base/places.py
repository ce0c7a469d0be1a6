"""Folders: the user's home, the data folders, and the ablations that come with this package."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from gapbench.errors import UserError

DATA = "GAPBENCH_DATA"


def expanded(path: Path) -> Path:
    """Return a path in which the user's home folder replaces `~`.

    Raises:
        UserError: if the user has no home folder, as in a container without a name for its user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{path}: this user has no home folder: set HOME") from None


def below_home(variable: str, usual: str) -> Path:
    """Return this package's folder below the folder in the variable `variable`, else in `usual`.

    Raises:
        UserError: as for `expanded`.
    """
    return expanded(Path(os.environ.get(variable) or usual)) / "gapbench"


def data_folders(given: Path | None = None) -> list[Path]:
    """Return the data folders in search order: the given one, $GAPBENCH_DATA, and the cache.

    Downloads are stored in the first of these folders.

    Raises:
        UserError: as for `expanded`.
    """
    named = os.environ.get(DATA)
    folders = [folder for folder in (given, Path(named) if named else None) if folder is not None]
    return [*map(expanded, folders), below_home("XDG_CACHE_HOME", "~/.cache")]


def shipped() -> Path:
    """Return the folder of the ablations/ and baselines/ that come with this package.

    An installed distribution has these folders among its data files; a checkout has them beside the
    package.
    """
    beside = Path(__file__).parents[2]
    installed = Path(sysconfig.get_path("data")) / "share" / "gapbench"
    return beside if (beside / "ablations").is_dir() else installed


def ablation_file(given: Path) -> Path:
    """Return the file of an ablation that is given as a path or as a bare name.

    The name `partitions` stands for ablations/partitions.yaml in the current folder, else in
    `shipped`. A path, and a name without such a file, is returned as it is.
    """
    if given.suffix or len(given.parts) != 1 or given.exists():
        return given
    places = (Path("ablations"), shipped() / "ablations")
    files = (place / f"{given}.yaml" for place in places)
    return next((file for file in files if file.is_file()), given)

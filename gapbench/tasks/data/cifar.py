"""CIFAR-10 and CIFAR-100; torchvision reads, checks and downloads the files."""

from __future__ import annotations

from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

from gapbench.base.places import DATA, data_folders
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError

Name = Literal["CIFAR10", "CIFAR100"]
IMAGES = 50_000  # for training; the test split is the data set's own


def reader(name: Name, *, train: bool) -> Any:
    """Return torchvision's data set, from the first data folder that has its files.

    The attribute `data`, uint8 of shape (n, 32, 32, 3), has all images; `targets` has all labels.

    Raises:
        UserError: if no folder has all files with correct checksums.
    """
    known = getattr(load_torchvision("torchvision.datasets"), name)
    places = _places(known)
    for place in places:
        try:
            return known(place, train=train)
        except RuntimeError:  # a file is missing, or its MD5 is another
            continue
        except OSError as error:
            raise UserError(f"{place / known.base_folder}: cannot be read: {error}") from None
    looked = ", ".join(str(place / known.base_folder) for place in places)
    raise UserError(
        f"{name} is in none of {looked}: run `gapbench prepare FILE` to download it, or unpack "
        f"{known.filename} from {known.url} there, or set {DATA} to the folder that holds "
        f"{known.base_folder}"
    )


def download(name: Name, folder: Path | None) -> None:
    """Check that the files are present, or download them into the first data folder.

    Raises:
        UserError: if the files cannot be downloaded.
    """
    known = getattr(load_torchvision("torchvision.datasets"), name)
    place = data_folders(folder)[0]
    try:
        with redirect_stdout(None):  # where torchvision tells what is there already
            known(place, download=True)
    except (OSError, RuntimeError) as error:
        told = " ".join(str(error).split())
        words = f"{told}: download it on another machine, and set {DATA} to its folder"
        raise UserError(f"{name} cannot be downloaded from {known.url}: {words}") from None


def _places(known: Any) -> list[Path]:
    folders = data_folders()
    return [*folders, *(folder / known.__name__.lower() for folder in folders)]

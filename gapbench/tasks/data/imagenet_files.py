"""Finding, listing and checking folders of images by class. No image is opened here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gapbench.base.places import data_folders
from gapbench.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
HOW_TO = (
    "the licence forbids redistribution: download ILSVRC2012 from https://image-net.org with your "
    "own account, lay the images out as imagenet/train/<class>/*.JPEG and "
    "imagenet/val/<class>/*.JPEG, and set GAPBENCH_DATA to the folder that holds imagenet"
)
SHOWN = 3  # names in an error


@dataclass(frozen=True)
class Tree:
    """The image files below one folder, ordered by class and name.

    Attributes:
        folder: the folder to which the paths are relative.
        classes: sorted names of the class folders; a class's label is its index in this list.
        paths: relative paths as bytes of fixed length. A list of a million strings would be copied
            into every reading process as soon as reference counts change.
        labels: class label of each file.
        digest: sha256 over all paths and file sizes.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: npt.NDArray[np.bytes_]
    labels: npt.NDArray[np.int64]
    digest: str

    def path(self, index: int) -> Path:
        """Return the path of file `index`."""
        return self.folder / os.fsdecode(bytes(self.paths[index]))


def find_root(name: str, data_dir: Path | None = None) -> Path:
    """Return the folder that contains train/ and val/: a data folder, or `name` below one.

    `places.data_folders` lists the data folders.

    Raises:
        UserError: if no such folder exists; the message names the folders that were searched, and
            how to get the data.
    """
    *named, cache = data_folders(data_dir)
    places = [*(place for folder in named for place in (folder / name, folder)), cache / name]
    for place in places:
        if any((place / split).is_dir() for split in ("train", "val")):
            return place
    looked = ", ".join(map(str, places))
    raise UserError(f"{name}: no train/ and val/ in any of {looked}; {HOW_TO}")


def read_trees(root: Path, classes: int) -> tuple[Tree, Tree]:
    """List and check train/ and val/ below `root`.

    Raises:
        UserError: naming the folder, if a folder is missing or has no images, if a class is empty,
            if there are not `classes` classes, or if the classes of train/ and val/ differ.
    """
    train, val = _listed(root / "train"), _listed(root / "val")
    for one, other in ((train, val), (val, train)):
        extra = sorted(set(one.classes) - set(other.classes))
        if extra:
            raise UserError(f"{one.folder}: {_some(extra)} not in {other.folder}")
    if len(train.classes) != classes:
        raise UserError(
            f"{train.folder}: {len(train.classes)} class folders, not {classes}: complete it, or "
            f"set task_options.classes to {len(train.classes)}"
        )
    return train, val


def _listed(folder: Path) -> Tree:
    if not folder.is_dir():
        raise UserError(f"{folder}: the folder is missing; {HOW_TO}")
    with os.scandir(folder) as entries:
        classes = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not classes:
        raise UserError(f"{folder}: no class folders; images belong in {folder}/<class>")
    paths: list[bytes] = []
    labels: list[int] = []
    total = hashlib.sha256()
    empty = []
    for label, name in enumerate(classes):
        found = sorted(_images(folder / name, name))
        if not found:
            empty.append(name)
        for path, size in found:
            total.update(b"%s\0%d\n" % (path, size))
            paths.append(path)
            labels.append(label)
    if empty:
        raise UserError(f"{folder}: {_some(empty)} without an image")
    digest = total.hexdigest()
    return Tree(folder, tuple(classes), np.array(paths), np.array(labels), digest)


def _images(folder: Path, relative: str) -> Iterator[tuple[bytes, int]]:
    """Yield relative path and size of each image below a class folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{relative}/{entry.name}"
                if entry.name.startswith("."):
                    continue  # what file systems and programs keep beside images: ._x.JPEG
                if entry.name.lower().endswith(SUFFIXES):
                    yield os.fsencode(name), entry.stat().st_size
                elif entry.is_dir():
                    yield from _images(folder / entry.name, name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error}") from None


def _some(names: Sequence[str]) -> str:
    """Return "class a", or "classes a, b, c and 4 more"."""
    listed = ", ".join(names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{'class' if len(names) == 1 else 'classes'} {listed}{more}"

"""Sources of data sets: the user's folder, the system, Debian's archive, or mirrors.

From every source, a file is accepted only if the sha256 of its unpacked content is the known one.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gapbench.base.places import DATA, data_folders
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = 60  # seconds without an answer from a mirror


@dataclass(frozen=True)
class DataFile:
    """A file of a data set: its unpacked name, and the sha256 of its unpacked content."""

    name: str
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """A data set of a few files.

    Attributes:
        name: name of the data set, and of its folder below a data folder.
        files: the files by a short name.
        system: the folder in which Debian's package installs the files.
        package: name of Debian's package.
        torchvision: name of the class in torchvision.datasets that lists the mirrors.
    """

    name: str
    files: Mapping[str, DataFile]
    system: Path
    package: str
    torchvision: str


FASHION_MNIST = DataSet(
    name="fashion-mnist",
    files={
        "train-images": DataFile(
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        "train-labels": DataFile(
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "test-images": DataFile(
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        "test-labels": DataFile(
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
    system=Path("/usr/share/datasets/fashion-mnist"),
    package="dataset-fashion-mnist",
    torchvision="FashionMNIST",
)

Contents = dict[str, bytes]


class _Unavailable(Exception):
    """A source cannot give the data; the message says why."""


def obtain(dataset: DataSet, folder: Path | None = None) -> Contents:
    """Return the content of each file of `dataset`, from the first source that has all files.

    The sources are, in order: `folder`; $GAPBENCH_DATA; the system; earlier downloads; Debian's
    package, which needs no root; torchvision's mirrors. Downloads are kept in `folder`, else in
    $GAPBENCH_DATA, else in ~/.cache/gapbench. Several processes may call this at the same time.

    Raises:
        UserError: if no source has all files; the message has each source's reason.
    """
    home = data_folders(folder)[0]
    failures = []
    for place in _places(dataset, folder):
        try:
            contents = _read(dataset, place)
        except _Unavailable as error:
            failures.append(f"{place} ({error})")
            continue
        if folder is not None and folder not in (place, *place.parents):
            _keep(dataset, contents, folder)
        return contents
    try:
        return _fetch(dataset, home)
    except _Unavailable as error:
        tried = "; ".join([*failures, str(error)])
    raise UserError(
        f"{dataset.name} cannot be found or downloaded; tried: {tried}: run `gapbench prepare FILE "
        f"--data FOLDER` on a machine with a network, and set {DATA} to a copy of FOLDER"
    )


def is_here(dataset: DataSet) -> bool:
    """Say whether a folder of this machine has all files of `dataset`; download nothing."""
    for place in _places(dataset):
        with suppress(_Unavailable):
            _read(dataset, place)
            return True
    return False


def read_idx(content: bytes) -> Tensor:
    """Return the array of an IDX file of unsigned bytes as a uint8 tensor of the array's shape."""
    import torch

    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


def _places(dataset: DataSet, folder: Path | None = None) -> list[Path]:
    """Return the folders of this machine that may have the files, in order."""
    *named, cache = data_folders(folder)
    below = [place for name in named for place in _below(dataset, name)]
    return [*below, dataset.system, cache / dataset.name]


def _below(dataset: DataSet, folder: Path) -> list[Path]:
    """Return where the files may lie in a data folder: our layout, torchvision's, or bare."""
    return [folder / dataset.name, folder / dataset.torchvision / "raw", folder]


def _read(dataset: DataSet, folder: Path) -> Contents:
    """Return the files in `folder`, plain or packed by gzip."""
    contents = {}
    for key, file in dataset.files.items():
        plain, packed = folder / file.name, folder / f"{file.name}.gz"
        try:
            content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        except FileNotFoundError:
            raise _Unavailable(f"no {file.name}") from None
        except (OSError, EOFError, zlib.error) as error:
            raise _Unavailable(f"{file.name}: {error}") from None
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise _Unavailable(f"{file.name} has a wrong sha256")
        contents[key] = content
    return contents


def _fetch(dataset: DataSet, home: Path) -> Contents:
    """Download the files and store them below `home`; other processes wait meanwhile."""
    failures = []
    with _locked(home, dataset):
        try:
            return _read(dataset, home / dataset.name)  # another process was faster
        except _Unavailable:
            pass
        for source, get in (
            (f"Debian's package {dataset.package}", _from_debian),
            ("torchvision's mirrors", _from_mirrors),
        ):
            with tempfile.TemporaryDirectory(dir=home, prefix=f".{dataset.name}-") as folder:
                try:
                    contents = _read(dataset, get(dataset, Path(folder)))
                except (_Unavailable, OSError) as error:
                    failures.append(f"{source} ({_one_line(error)})")
                    continue
            _keep(dataset, contents, home)
            return contents
    raise _Unavailable("; ".join(failures))


@contextmanager
def _locked(home: Path, dataset: DataSet) -> Iterator[None]:
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = open(home / f".{dataset.name}.lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _Unavailable(f"nothing downloaded, since {home} cannot be written: {error}") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep(dataset: DataSet, contents: Contents, home: Path) -> None:
    """Write the unpacked files below `home`, each file atomically."""
    folder = home / dataset.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for key, file in dataset.files.items():
            partial = folder / f".{file.name}.{uuid.uuid4().hex[:8]}"
            try:
                partial.write_bytes(contents[key])
                os.replace(partial, folder / file.name)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{dataset.name} cannot be saved: {error}") from None


def _from_debian(dataset: DataSet, folder: Path) -> Path:
    """Download and unpack Debian's package into `folder`, with own package lists if necessary.

    The system is not changed.
    """
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise _Unavailable(f"{command} is not installed")
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    brief = ("Acquire::Retries=0", "Acquire::http::Timeout=30", "APT::Update::Error-Mode=any")
    private = (*brief, f"Dir::State::Lists={lists}", f"Dir::Cache={folder}")
    try:
        _run([*_apt_get(brief), "download", dataset.package], folder)
    except _Unavailable:  # most often because the system has no package lists
        _run([*_apt_get(private), "update"], folder)
        _run([*_apt_get(private), "download", dataset.package], folder)
    [package] = folder.glob(f"{dataset.package}_*.deb")
    _run(["dpkg-deb", "-x", package.name, "unpacked"], folder)
    return folder / "unpacked" / dataset.system.relative_to("/")


def _apt_get(settings: tuple[str, ...]) -> list[str]:
    return ["apt-get", *(word for setting in settings for word in ("-o", setting))]


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
    except subprocess.TimeoutExpired:
        raise _Unavailable(f"{command[0]} did not end in 10 minutes") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        raise _Unavailable(errors[0] if errors else f"{command[0]} returned {done.returncode}")


def _from_mirrors(dataset: DataSet, folder: Path) -> Path:
    """Download the files from the first mirror that answers."""
    known = getattr(load_torchvision("torchvision.datasets"), dataset.torchvision)
    failures = []
    opener = urllib.request.build_opener()  # `urlopen` would keep the proxies of its first call
    for mirror in known.mirrors:
        try:
            for file in dataset.files.values():
                name = f"{file.name}.gz"
                with opener.open(mirror + name, timeout=TIMEOUT) as answer:
                    (folder / name).write_bytes(answer.read())
            return folder
        except OSError as error:
            failures.append(f"{mirror}: {_one_line(error)}")
    raise _Unavailable(", ".join(failures) or "torchvision has no mirrors")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""Image files to batches of pixels, in as many processes as there are processors.

What a batch holds depends on nothing but the request for it: neither on the number of processes nor
on the batches before it. docs/notes/images.md has the measurement behind the choice of the decoder.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gapbench.base.places import below_home
from gapbench.base.streams import stream_seed
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError
from gapbench.tasks.data.imagenet_files import Tree

PIECE = 64  # images a process reads at once: small, so that few wait in shared memory
AHEAD = 2  # pieces that each process may be ahead
BORDER = (
    256 / 224
)  # evaluation resizes the shorter side to this times the size, and cuts the centre
VARIABLE = "GAPBENCH_WORKERS"
REASONS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # that PIL gives


@dataclass(frozen=True)
class Request:
    """A batch to be read.

    Attributes:
        indices: files of the tree.
        seed: of the epoch's augmentation; the images are cut at their centre if None.
        first: place in the epoch of the first image, which addresses its augmentation.
    """

    indices: Sequence[int]
    seed: int | None = None
    first: int = 0

    def pieces(self) -> list[Request]:
        """Return the request in pieces of at most 64 images."""
        starts = range(0, len(self.indices), PIECE)
        return [Request(self.indices[at : at + PIECE], self.seed, self.first + at) for at in starts]


def read(
    tree: Tree, size: int, requests: Sequence[Request], device: torch.device
) -> Iterator[Tensor]:
    """Yield the pixels of each request on `device`: uint8, shape (n, 3, size, size), channels last.

    Raises:
        UserError: naming the file, if one cannot be decoded.
    """
    pieces = [request.pieces() for request in requests]
    loaded = _loaded(Reader(tree, size), [one for some in pieces for one in some], device)
    for some in pieces:
        parts = []
        for _ in some:
            part = next(loaded)
            if isinstance(part, str):
                raise UserError(part)
            parts.append(part.to(device, non_blocking=True))
        yield torch.cat(parts).permute(0, 3, 1, 2)


def undecodable(tree: Tree) -> list[str]:
    """Decode every file; return a line about each that cannot be, beginning with its path."""
    everything = Request(range(len(tree.paths))).pieces()
    found = _loaded(Checker(tree), everything, torch.device("cpu"))
    return [line for lines in found for line in lines]


def require_decodable(tree: Tree) -> None:
    """Check the files that are read only when the training is over: a bad one would cost all of it.

    Files that were good are remembered by their paths and sizes, so that an attempt that goes on
    does not wait.

    Raises:
        UserError: about the first that cannot be decoded.
    """
    told = hashlib.sha256(f"{tree.folder.resolve()}\0{tree.digest}".encode()).hexdigest()
    mark = below_home("XDG_CACHE_HOME", "~/.cache") / "decodable" / told
    if mark.exists():
        return
    bad = undecodable(tree)
    if bad:
        more = f" (and {len(bad) - 1} more; `gapbench prepare FILE` checks all)" if bad[1:] else ""
        raise UserError(f"{bad[0]}{more}")
    with suppress(OSError):  # a cache that cannot be written costs time alone
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def workers() -> int:
    """Return how many processes read beside this one: all but one of its processors.

    $GAPBENCH_WORKERS goes before that; 0 reads in this process.

    Raises:
        UserError: if that is no number.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not named.isdecimal():
            raise UserError(f"{VARIABLE}: {named!r} is no number of processes")
        return int(named)
    seen = len(os.sched_getaffinity(0))  # of all ranks, where SLURM does not bind them
    own = os.environ.get("SLURM_CPUS_PER_TASK")
    mine = min(seen, int(own)) if own else seen // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, mine - 1)


def _loaded(dataset: Dataset[Any], pieces: Sequence[Request], device: torch.device) -> Any:
    processes = min(workers(), len(pieces))
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=pieces,  # any iterable of keys does
            collate_fn=_as_it_is,
            num_workers=processes,
            prefetch_factor=AHEAD if processes else None,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else the loader draws from torch's own
        )
    )


def _as_it_is(piece: Any) -> Any:
    return piece


class Reader(Dataset[Any]):
    """Answers a request by pixels, shape (n, size, size, 3), or by a line about a bad file."""

    def __init__(self, tree: Tree, size: int) -> None:
        transforms = load_torchvision("torchvision.transforms.v2")
        self.tree = tree
        self.size = size
        self.random_crop = transforms.RandomResizedCrop(size)
        self.flip = transforms.RandomHorizontalFlip()
        self.resize = transforms.functional.resize
        self.centre = transforms.Compose(
            [transforms.Resize(round(size * BORDER)), transforms.CenterCrop(size)]
        )

    def __getitem__(self, request: Request) -> Tensor | str:
        """Read a piece; its images draw from streams of their own."""
        pixels = torch.empty(len(request.indices), self.size, self.size, 3, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):
            for place, index in enumerate(request.indices):
                path = self.tree.path(index)
                try:
                    image = Image.open(io.BytesIO(path.read_bytes()))
                    require_eight_bits(image)
                    if request.seed is None:
                        found = self.centre(_tensor(image))
                    else:
                        at = stream_seed(request.seed, "augment", request.first + place)
                        torch.default_generator.manual_seed(at)
                        found = self._augmented(image)
                except REASONS as error:
                    return f"{path}: cannot be decoded: {_reason(error)}"
                pixels[place] = found.permute(1, 2, 0)
        return pixels

    def _augmented(self, image: Image.Image) -> Tensor:
        """Cut and mirror as the transforms would, but cut before the pixels leave PIL.

        They leave it slowly; torch then resizes bytes faster than PIL does.
        """
        box = self.random_crop.make_params([image])
        top, left, height, width = (box[key] for key in ("top", "left", "height", "width"))
        cut = _tensor(image.crop((left, top, left + width, top + height)))
        mirrored: Tensor = self.flip(self.resize(cut, [self.size, self.size]))
        return mirrored


class Checker(Dataset[Any]):
    """Answers a request by lines about those of its files that cannot be decoded."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __getitem__(self, request: Request) -> list[str]:
        """Decode a piece, small where the format allows it."""
        lines = []
        for path in map(self.tree.path, request.indices):
            try:
                image = Image.open(io.BytesIO(path.read_bytes()))
                require_eight_bits(image)
                image.draft("RGB", (1, 1))
                image.load()
            except REASONS as error:
                lines.append(f"{path}: cannot be decoded: {_reason(error)}")
        return lines


def require_eight_bits(image: Image.Image) -> None:
    """Check that an image is one when it is taken for RGB bytes.

    PIL clips deeper values, so that all is white or black, and drops the alpha channel. How many of
    16 bits are used is told nowhere: a range that is guessed would make other pictures dark.

    Raises:
        ValueError: if it has more than 8 bits a channel, or is drawn in its alpha channel alone.
    """
    if image.mode.partition(";")[0] in ("I", "F"):
        raise ValueError(f"mode {image.mode} has more than 8 bits a channel: convert it to 8")
    if image.mode in ("RGBA", "LA"):
        *colours, alpha = (low != high for low, high in cast(Any, image.getextrema()))
        if alpha and not any(colours):
            raise ValueError("all of it is in the alpha channel: flatten it")


def _tensor(image: Image.Image) -> Tensor:
    """Return an image of any mode as RGB bytes, shape (3, height, width), channels last."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image that PIL knows"
    return " ".join(str(error).split()) or type(error).__name__

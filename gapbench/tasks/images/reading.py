"""Reading of image files into batches of pixels, in as many processes as there are processors.

The content of a batch depends on its request alone: neither on the number of processes nor on
earlier batches. docs/notes/images.md has the measurements behind the choice of the decoder.
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
    """A request for a batch.

    Attributes:
        indices: indices of the files in the tree.
        seed: seed of the epoch's augmentation; None crops the images at their centre.
        first: index in the epoch of the first image, which addresses the random augmentation.
    """

    indices: Sequence[int]
    seed: int | None = None
    first: int = 0

    def pieces(self) -> list[Request]:
        """Return the request split into requests of at most 64 images."""
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
    found = loaded(Reader(tree, size), [one for some in pieces for one in some], device)
    for some in pieces:
        parts = []
        for _ in some:
            part = next(found)
            if isinstance(part, str):
                raise UserError(part)
            parts.append(part.to(device, non_blocking=True))
        yield torch.cat(parts).permute(0, 3, 1, 2)


def undecodable(tree: Tree) -> list[str]:
    """Decode every file; return a line for each undecodable file, which starts with its path."""
    everything = Request(range(len(tree.paths))).pieces()
    found = loaded(Checker(tree), everything, torch.device("cpu"))
    return [line for lines in found for line in lines]


def require_decodable(tree: Tree) -> None:
    """Check files that are read only after training: an undecodable file would lose the training.

    Decodable files are remembered by their paths and sizes, so a resumed attempt does not wait.

    Raises:
        UserError: naming the first file that cannot be decoded.
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
    """Return the number of reading processes: one less than the processors of this process.

    $GAPBENCH_WORKERS overrides the number; 0 reads in this process.

    Raises:
        UserError: if $GAPBENCH_WORKERS is not a number.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not named.isdecimal():
            raise UserError(f"{VARIABLE}: {named!r} is not a number of processes")
        return int(named)
    seen = len(os.sched_getaffinity(0))  # of all ranks, where SLURM does not bind them
    own = os.environ.get("SLURM_CPUS_PER_TASK")
    mine = min(seen, int(own)) if own else seen // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, mine - 1)


def loaded(dataset: Dataset[Any], pieces: Sequence[Request], device: torch.device) -> Any:
    """Return an iterator over what `dataset` maps each piece to, read by `workers()` processes."""
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
    """A data set that maps a request to pixels, (n, size, size, 3), or to a line on a bad file."""

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
        """Read the images of a request; each image has its own random stream."""
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
        """Crop and mirror like torchvision's transforms, but crop before the pixels leave PIL.

        The copy of pixels out of PIL is slow; torch then resizes bytes faster than PIL.
        """
        box = self.random_crop.make_params([image])
        top, left, height, width = (box[key] for key in ("top", "left", "height", "width"))
        cut = _tensor(image.crop((left, top, left + width, top + height)))
        mirrored: Tensor = self.flip(self.resize(cut, [self.size, self.size]))
        return mirrored


class Checker(Dataset[Any]):
    """A data set that maps a request to lines about its undecodable files."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __getitem__(self, request: Request) -> list[str]:
        """Decode the images of a request, at reduced size if the format allows it."""
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
    """Check that the conversion of an image to RGB bytes keeps its content.

    PIL clips deeper values, so that the image is white or black, and drops the alpha channel. No
    field says how many of 16 bits are used: a guessed range would make other images dark.

    Raises:
        ValueError: if the image has more than 8 bits per channel, or its content is only in the
            alpha channel.
    """
    if image.mode.partition(";")[0] in ("I", "F"):
        raise ValueError(f"mode {image.mode} has more than 8 bits a channel: convert it to 8")
    if image.mode in ("RGBA", "LA"):
        *colours, alpha = (low != high for low, high in cast(Any, image.getextrema()))
        if alpha and not any(colours):
            raise ValueError("all content is in the alpha channel: flatten the image")


def _tensor(image: Image.Image) -> Tensor:
    """Return an image of any mode as RGB bytes, shape (3, height, width), channels last."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that PIL can read"
    return " ".join(str(error).split()) or type(error).__name__

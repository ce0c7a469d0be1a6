"""Images a second of ResNet-50 that trains from files, by the way in which the files are read.

    python -m benchmarks.gpu_images [--model ResNet-50] [--mode captured] [--batch 256] [--steps 60]
        [--rounds 3] [--files 512] [--page FILE]

The files are generated JPEG files of ImageNet's usual size. A step is the masked step of
`benchmarks.gpu_steps`. All ways take turns; a turn counts `--steps` steps after as many that
empty the queues of reading processes. The last column compares with inputs that lie on the GPU,
which is the bound. simplejpeg is no dependency of gapbench, and not every torchvision decodes: a
line is left out where its decoder is not installed. Needs CUDA, but for `--device cpu`, which tries
the script.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu_steps import MODELS, MODES, trainer, wait
from benchmarks.image_loading import QUALITY, plant
from benchmarks.rows import tell
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.tasks.data.imagenet_files import Tree, read_trees
from gapbench.tasks.images.disk import DEVIATION, MEAN
from gapbench.tasks.images.reading import Reader, Request, loaded, read, workers

SHORTER = 256  # pixels of the shorter side of files that were resized once
Ways = dict[str, Callable[[int], Iterator[Tensor]]]


class SimpleReader(Reader):
    """Reads requests as `Reader` does, with another decoder."""

    def __getitem__(self, request: Request) -> Tensor:
        """Return pixels, (n, size, size, 3)."""
        decode = importlib.import_module("simplejpeg").decode_jpeg
        found = []
        for index in request.indices:
            pixels = torch.from_numpy(decode(self.tree.path(index).read_bytes())).permute(2, 0, 1)
            found.append(self.flip(self.random_crop(pixels)).permute(1, 2, 0))
        return torch.stack(found)


class Bytes(Reader):
    """Reads the undecoded files of requests."""

    def __getitem__(self, request: Request) -> list[Tensor]:  # type: ignore[override]
        """Return a tensor of bytes per file."""
        paths = map(self.tree.path, request.indices)
        return [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]


def ways_of(root: Path, size: int, batch: int, device: torch.device) -> Ways:
    """Return the ways; each yields so many batches on `device`, uint8, (batch, 3, size, size)."""
    trees = {name: read_trees(root / name, 1)[0] for name in ("usual", "resized")}

    def requests(tree: Tree, count: int) -> list[Request]:
        files = itertools.cycle(range(len(tree.paths)))
        return [Request(list(itertools.islice(files, batch)), 0, n * batch) for n in range(count)]

    def parts_of(reader: Reader, count: int) -> Iterator[list[Any]]:
        wanted = [request.pieces() for request in requests(reader.tree, count)]
        parts = loaded(reader, [piece for pieces in wanted for piece in pieces], device)
        for pieces in wanted:
            yield list(itertools.islice(parts, len(pieces)))

    def on_device(count: int) -> Iterator[Tensor]:
        torch.manual_seed(0)
        pixels = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, device=device)
        return itertools.repeat(pixels, count)

    def simple(count: int) -> Iterator[Tensor]:
        for parts in parts_of(SimpleReader(trees["usual"], size), count):
            moved = [part.to(device, non_blocking=True) for part in parts]
            yield torch.cat(moved).permute(0, 3, 1, 2)

    def by_gpu(count: int) -> Iterator[Tensor]:
        decode = load_torchvision("torchvision.io").decode_jpeg
        reader = Bytes(trees["usual"], size)
        for parts in parts_of(reader, count):
            images = decode([file for part in parts for file in part], device=device)
            yield torch.stack([reader.flip(reader.random_crop(image)) for image in images])

    def ours(name: str, count: int) -> Iterator[Tensor]:
        return read(trees[name], size, requests(trees[name], count), device)

    ways: Ways = {
        "inputs on the GPU": on_device,
        "gapbench": lambda count: ours("usual", count),
        f"gapbench, files resized once to {SHORTER} px": lambda count: ours("resized", count),
    }
    try:
        next(by_gpu(1))
        ways["decoded by torchvision on the GPU"] = by_gpu
    except RuntimeError as error:  # a torchvision without its image extension
        print(f"torchvision does not decode here: {str(error).splitlines()[0]}", file=sys.stderr)
    if importlib.util.find_spec("simplejpeg") is not None:
        ways["decoded by simplejpeg"] = simple
    return ways


def resize(usual: Path, resized: Path) -> None:
    """Copy a tree of files, each resized so that its shorter side has 256 pixels."""
    shutil.copytree(usual, resized)
    for path in resized.rglob("*.JPEG"):
        image = Image.open(path)
        scale = SHORTER / min(image.size)
        width, height = (round(scale * side) for side in image.size)
        image.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=QUALITY)


def measured(
    ways: Ways,
    train: Callable[[tuple[Tensor, Tensor]], None],
    steps: int,
    rounds: int,
    device: torch.device,
) -> dict[str, float]:
    """Return the images a second of each way, the median over rounds; all ways take turns."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    mean, deviation = (
        255 * torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, DEVIATION)
    )
    for _, (name, way) in itertools.product(range(rounds), ways.items()):
        ends = []
        for number, pixels in enumerate(way(2 * steps), 1):
            floats = ((pixels.float() - mean) / deviation).to(memory_format=torch.channels_last)
            train((floats, torch.zeros(len(pixels), dtype=torch.int64, device=device)))
            if number in (steps, 2 * steps):
                wait(device)
                ends.append(time.perf_counter())
        seen[name].append(steps * len(pixels) / (ends[1] - ends[0]))
    return {name: statistics.median(values) for name, values in seen.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", choices=MODELS, default="ResNet-50")
    parser.add_argument("--mode", choices=MODES, default="captured")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60, help="of one turn")
    parser.add_argument("--rounds", type=int, default=3, help="the median is over these")
    parser.add_argument("--files", type=int, default=512, help="different files")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--page", type=Path, help="where the table is written too")
    given = parser.parse_args(arguments)
    if min(given.batch, given.steps, given.rounds, given.files) < 1:
        parser.error("--batch, --steps, --rounds and --files need 1 or more")
    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu_images: needs a CUDA GPU, and torch sees none here", file=sys.stderr)
        return 2
    device, size = torch.device(given.device), MODELS[given.model][1]
    train = trainer(True, given.mode, device, given.batch, given.model)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plant(root / "usual", given.files)
        resize(root / "usual", root / "resized")
        ways = ways_of(root, size, given.batch, device)
        found = measured(ways, train, given.steps, given.rounds, device)
    bound = found["inputs on the GPU"]
    head = f"{given.model}, {given.mode}, batch {given.batch}, {workers()} reading processes"
    cells = [(name, f"{rate:.0f}", f"{rate / bound:.2f}") for name, rate in found.items()]
    tell((head, "images/s", "of the bound"), cells, given.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

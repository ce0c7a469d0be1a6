"""How many training images a second one core reads, by decoder and by loader.

    python benchmarks/image_loading.py [--json FILE]

Reads generated JPEG files of ImageNet's usual size and cuts random 224 px squares out of them. All
ways are measured in turn, several times over, and the median counts. Ways whose package is not
installed are left out; simplejpeg and opencv-python-headless are no dependencies of gapbench.
docs/notes/images.md has figures.
"""

from __future__ import annotations

import argparse
import importlib
import io
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.tasks.data.imagenet_files import read_trees
from gapbench.tasks.images.disk import DEVIATION, MEAN
from gapbench.tasks.images.reading import VARIABLE, Request, read

WIDTH, HEIGHT, QUALITY, SIZE = 500, 375, 90, 224
BATCH = 64
CPU = torch.device("cpu")
Way = Callable[[bytes], Any]


def photograph(seed: int) -> Image.Image:
    """Return noise with the spectrum of photographs, so that files are as large as theirs."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((3, HEIGHT, WIDTH)))
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    pixels = np.fft.irfft2(spectrum / frequency**0.9, s=(HEIGHT, WIDTH))
    pixels = 120 + 55 * (pixels - pixels.mean()) / pixels.std()
    grey = 0.7 * pixels[:1] + 0.3 * pixels  # colours of a photograph go together
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def plant(root: Path, count: int) -> list[bytes]:
    """Write `count` files below train/ and one below val/; return what they hold."""
    contents = []
    for index in range(count):
        file = io.BytesIO()
        photograph(index).save(file, "JPEG", quality=QUALITY)
        contents.append(file.getvalue())
    for split, some in (("train", contents), ("val", contents[:1])):
        (root / split / "class").mkdir(parents=True)
        for index, content in enumerate(some):
            (root / split / "class" / f"{index:05}.JPEG").write_bytes(content)
    return contents


def decoders() -> Iterator[tuple[str, Way]]:
    """Yield the ways to turn a file's bytes into a 224 px square of bytes or floats."""
    v2 = load_torchvision("torchvision.transforms.v2")
    crop, flip = v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()
    whole = v2.Compose([crop, flip])
    scaled = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)])
    plain = v2.Compose([whole, v2.ToImage(), scaled])

    def opened(content: bytes) -> Image.Image:
        return Image.open(io.BytesIO(content))

    def with_draft(content: bytes) -> Tensor:
        image = opened(content)
        image.draft("RGB", (256, 256))
        return _pixels(whole(image))

    def cut_first(content: bytes) -> Tensor:
        image = opened(content)
        box = crop.make_params([image])
        top, left, height, width = (box[key] for key in ("top", "left", "height", "width"))
        cut = image.crop((left, top, left + width, top + height))
        mirrored: Tensor = flip(v2.functional.resize(_pixels(cut), [SIZE, SIZE]))
        return mirrored

    yield "PIL, the usual transforms, normalised", lambda content: plain(opened(content))
    yield "PIL, resized by PIL", lambda content: _pixels(whole(opened(content)))
    yield "PIL with draft, resized by PIL", with_draft
    yield "PIL, resized by torch", lambda content: whole(_pixels(opened(content)))
    yield "PIL cuts, torch resizes (gapbench)", cut_first
    for name, decode in (("simplejpeg", _simplejpeg()), ("opencv", _opencv())):
        if decode is not None:

            def by_library(content: bytes, decode: Way = decode) -> Any:
                return whole(torch.from_numpy(decode(content)).permute(2, 0, 1))

            yield f"{name}, resized by torch", by_library


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _simplejpeg() -> Way | None:
    try:
        found: Way = importlib.import_module("simplejpeg").decode_jpeg
    except ImportError:
        return None
    return found


def _opencv() -> Way | None:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        return None
    cv2.setNumThreads(1)
    return lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


class PlainFolder(Dataset[Tensor]):
    """What a training script usually does: one normalised float image an item."""

    def __init__(self, root: Path, passes: int) -> None:
        self.files = sorted((root / "train" / "class").iterdir()) * passes
        self.way = next(decoders())[1]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        found: Tensor = self.way(self.files[index].read_bytes())
        return found


def measure_decoders(contents: list[bytes], rounds: int) -> dict[str, float]:
    """Return images a second of processor time of each decoder; all take the same squares."""
    ways = dict(decoders())
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for number, (name, way) in itertools.product(range(rounds), ways.items()):
        torch.manual_seed(number)
        began = time.process_time()
        for content in contents:
            way(content)
        seen[name].append(len(contents) / (time.process_time() - began))
    return {name: statistics.median(values) for name, values in seen.items()}


def measure_loaders(root: Path, passes: int, workers: int, rounds: int) -> dict[str, float]:
    """Return images a second of processor time of both loaders, up to batches in this process.

    Theirs are normalised floats; gapbench's are bytes, which the GPU normalises. Counted is the
    time of all processes, so that other work on the machine matters less.
    """
    tree, _ = read_trees(root, 1)
    folder = PlainFolder(root, passes)
    files = list(range(len(tree.paths))) * passes

    def plain() -> None:
        for _ in DataLoader(folder, BATCH, num_workers=workers):
            pass

    def own() -> None:
        batches = [Request(files[at : at + BATCH], 0, at) for at in range(0, len(files), BATCH)]
        for _ in read(tree, SIZE, batches, CPU):
            pass

    ways = {"PIL + DataLoader, the usual way": plain, "gapbench": own}
    seen: dict[str, list[float]] = {name: [] for name in ways}
    with _variable(str(workers)):
        for _, (name, way) in itertools.product(range(rounds), ways.items()):
            began = _processor_seconds()
            way()
            seen[name].append(len(files) / (_processor_seconds() - began))
    return {name: statistics.median(values) for name, values in seen.items()}


def _processor_seconds() -> float:
    """Return what this process has used, and the children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@contextmanager
def _variable(value: str) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = value
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=64, help="different files")
    parser.add_argument("--rounds", type=int, default=5, help="the median is over these")
    parser.add_argument("--passes", type=int, default=8, help="of the loaders over the files")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    if min(given.images, given.rounds, given.passes) < 1 or given.workers < 0:
        parser.error("--images, --rounds and --passes need 1 or more, --workers 0 or more")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        contents = plant(Path(folder), given.images)
        found = {
            "decoders": measure_decoders(contents, given.rounds),
            "loaders": measure_loaders(Path(folder), given.passes, given.workers, given.rounds),
        }
    where = {
        "date": time.strftime("%Y-%m-%d"),
        "processors": len(os.sched_getaffinity(0)),
        "workers": given.workers,
        "kilobytes": sum(map(len, contents)) / len(contents) / 1000,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": importlib.import_module("PIL").__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
    }
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    for kind, speeds in found.items():
        print(f"{kind}: images a second of one core")
        for name, speed in speeds.items():
            print(f"{speed:8.0f}  {name}")
    if given.json:
        given.json.write_text(json.dumps({**where, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

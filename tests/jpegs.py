"""Small trees of real JPEG files in class folders, for tests of the task imagenet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01", "n02", "n03", "n04")
SIZES = ((50, 40), (48, 64), (91, 37), (120, 80), (32, 32))  # width, height
MODES = {("n01", 1): "L", ("n02", 2): "CMYK"}  # the others are RGB
TRAIN, VAL = 10, 3  # images of each class


def picture(seed: int, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Return a smooth picture of its own."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def plant(root: Path, train: int = TRAIN, val: int = VAL) -> Path:
    """Write train/ and val/ below `root`, a grayscale and a CMYK image among them."""
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                seed = hash((split == "val", label, index)) % 2**32
                size = SIZES[(label + index) % len(SIZES)]
                image = picture(seed, size, MODES.get((name, index), "RGB"))
                image.save(folder / f"{name}_{index}.JPEG", quality=90)
    return root


def truncate(file: Path) -> Path:
    """Cut off the second half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return file

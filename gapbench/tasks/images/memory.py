"""Data sets of images that are small enough to stay on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gapbench.tasks.images.batching import Images, epoch_order, fixed_order, generator, shares
from gapbench.tasks.task import Split

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Labelled:
    """The raw images of a split: uint8 pixels and int64 labels.

    Attributes:
        images: shape (n, h, w) for grey images, else (n, channels, h, w).
        labels: shape (n,).
    """

    images: Tensor
    labels: Tensor


def labelled(dataset: Any) -> Labelled:
    """Return a torch Dataset of (image, label) pairs as tensors.

    Args:
        dataset: data set of PIL images, or of uint8 tensors of shape (h, w) or (channels, h, w).
    """
    pairs = [dataset[index] for index in range(len(dataset))]
    labels = torch.tensor([int(label) for _, label in pairs])
    return Labelled(torch.stack([_pixels(image) for image, _ in pairs]), labels)


def split_off(train: Labelled, validation: int) -> dict[Split, Labelled]:
    """Return the training split and the validation split of a training set; the cut is fixed."""
    order = fixed_order(len(train.labels))
    cuts: dict[Split, Tensor] = {"val": order[:validation], "train": order[validation:]}
    return {name: Labelled(train.images[cut], train.labels[cut]) for name, cut in cuts.items()}


def _pixels(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image
    pixels = torch.from_numpy(np.array(image))
    return pixels if pixels.ndim == 2 else pixels.permute(2, 0, 1)


class InMemoryDataset:
    """The splits of a task on a device, normalised by the training images.

    Training images are shifted by up to `shift` pixels in each direction. With `flip`, they are
    mirrored with probability 1/2.

    Attributes:
        digest: sha256 over pixels and labels of all splits, before normalisation.
    """

    def __init__(
        self, splits: dict[Split, Labelled], device: torch.device, *, shift: int, flip: bool
    ) -> None:
        self.digest = _digest(splits)
        self._shift, self._flip = shift, flip
        pixels = {name: _with_channels(split.images) for name, split in splits.items()}
        each = pixels["train"].transpose(0, 1).flatten(1)  # by channel
        mean, deviation = (value[:, None, None] for value in (each.mean(1), each.std(1)))
        self._splits = {
            name: (((pixels[name] - mean) / deviation).to(device), split.labels.to(device))
            for name, split in splits.items()
        }
        framed = functional.pad(pixels["train"], [shift] * 4)  # black surrounds what is pictured
        self._padded = ((framed - mean) / deviation).to(device)

    def batches(
        self, seed: int, *, batch_size: int, start: int, rank: int, world: int
    ) -> Iterator[Images]:
        """Yield this rank's slice of every training batch; leave out an incomplete batch.

        Raises:
            UserError: if the ranks cannot share a batch equally.
        """
        images, labels = self._splits["train"]
        count, device = len(labels), labels.device
        order = epoch_order(seed, count)
        moves = _moves(self._shift, self._flip, count, seed).to(device)
        order = order.to(device)
        labels, span = labels[order], torch.arange(images.shape[-1], device=device)
        rows = moves[:, 0, None] + span
        columns = moves[:, 1, None] + torch.where(moves[:, 2, None] > 0, span.flip(0), span)
        channels = torch.arange(images.shape[1], device=device)[:, None, None]
        chosen, rows, columns = (
            order[:, None, None, None],
            rows[:, None, :, None],
            columns[:, None, None],
        )
        for own in shares(count, batch_size=batch_size, start=start, rank=rank, world=world):
            # one kernel per batch: each image is cut out of its padded frame at (row, column)
            yield self._padded[chosen[own], channels, rows[own], columns[own]], labels[own]

    def examples(self, split: Split) -> Iterator[Images]:
        """Yield the images of a split in batches of at most 1000."""
        images, labels = self._splits[split]
        yield from zip(
            torch.split(images, EVALUATION_BATCH),
            torch.split(labels, EVALUATION_BATCH),
            strict=True,
        )


def _with_channels(images: Tensor) -> Tensor:
    """Return pixels as floats of shape (n, channels, h, w)."""
    return (images[:, None] if images.ndim == 3 else images).float()


def _moves(shift: int, flip: bool, count: int, seed: int) -> Tensor:
    """Draw row and column offset into the padded frame and the mirror flag, shape (count, 3)."""
    drawn = generator(seed, "augment")
    offsets = torch.randint(0, 2 * shift + 1, (count, 2), generator=drawn)
    mirrored = torch.randint(0, 2 if flip else 1, (count, 1), generator=drawn)
    return torch.cat([offsets, mirrored], dim=1)


def _digest(splits: dict[Split, Labelled]) -> str:
    total = hashlib.sha256()
    for name in sorted(splits):
        split = splits[name]
        total.update(f"{name} {tuple(split.images.shape)}".encode())
        total.update(split.images.contiguous().numpy().tobytes())
        total.update(split.labels.numpy().tobytes())
    return total.hexdigest()

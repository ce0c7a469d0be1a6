"""Grey images that are small enough to stay on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gapbench.tasks.images.batching import Images, epoch_order, generator, shares
from gapbench.tasks.task import Split

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Labelled:
    """Images of a split as they come: uint8 pixels, shape (n, h, w), and int64 labels."""

    images: Tensor
    labels: Tensor


class InMemoryDataset:
    """The splits of a task on a device, normalised by the training images.

    Training images are shifted by up to `shift` pixels in each direction and, if `flip`, mirrored
    half of the time.

    Attributes:
        digest: sha256 over pixels and labels of all splits, before normalisation.
    """

    def __init__(
        self, splits: dict[Split, Labelled], device: torch.device, *, shift: int, flip: bool
    ) -> None:
        self.digest = _digest(splits)
        self._shift, self._flip = shift, flip
        pixels = splits["train"].images.float()
        mean, deviation = pixels.mean(), pixels.std()
        self._splits = {
            name: (
                ((split.images.float() - mean) / deviation)[:, None].to(device),
                split.labels.to(device),
            )
            for name, split in splits.items()
        }
        blank = float(-mean / deviation)  # black, which surrounds the pictured things
        self._padded = functional.pad(self._splits["train"][0][:, 0], [shift] * 4, value=blank)

    def batches(
        self, seed: int, *, batch_size: int, start: int, rank: int, world: int
    ) -> Iterator[Images]:
        """Yield this rank's slice of every training batch; an incomplete one is left out.

        Raises:
            UserError: if the ranks cannot share a batch equally.
        """
        labels = self._splits["train"][1]
        count = len(labels)
        device = labels.device
        order = epoch_order(seed, count).to(device)
        moves = _moves(self._shift, self._flip, count, seed).to(device)
        for own in shares(count, batch_size=batch_size, start=start, rank=rank, world=world):
            yield self._moved(order[own], moves[own]), labels[order[own]]

    def examples(self, split: Split) -> Iterator[Images]:
        """Yield a split in batches of at most 1000."""
        images, labels = self._splits[split]
        yield from zip(
            torch.split(images, EVALUATION_BATCH),
            torch.split(labels, EVALUATION_BATCH),
            strict=True,
        )

    def _moved(self, chosen: Tensor, moves: Tensor) -> Tensor:
        """Return the chosen images, cut out of their padded frames at (row, column, mirrored)."""
        span = torch.arange(self._splits["train"][0].shape[-1], device=chosen.device)
        rows = moves[:, 0, None] + span
        columns = moves[:, 1, None] + torch.where(moves[:, 2, None] > 0, span.flip(0), span)
        cut = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cut[:, None]


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

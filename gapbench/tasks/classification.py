"""What image classification tasks share: loss, accuracy, and images kept in memory."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapbench.errors import UserError
from gapbench.streams import stream_seed
from gapbench.tasks.task import Batch, Metric, Recipe, Split, Task

EVALUATION_BATCH = 1000
Images = tuple[Tensor, Tensor]


class Classification(Task):
    """A task with one label per image; a batch is (images, labels)."""

    kind = "image"
    metric = Metric("accuracy")

    @abstractmethod
    def examples(self, split: Split) -> Iterator[Images]:
        """Yield the images of `split`, as they are, with their labels, in large batches."""

    def loss(self, model: nn.Module, batch: Batch, recipe: Recipe) -> Tensor:
        """Return the mean cross-entropy of a batch, with the recipe's label smoothing."""
        images, labels = batch
        return functional.cross_entropy(
            model(images), labels, label_smoothing=recipe.label_smoothing
        )

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return `accuracy` in percent and the mean cross-entropy `loss` over `split`."""
        correct, loss, count = 0, 0.0, 0
        with _evaluating(model):
            for images, labels in self.examples(split):
                logits = model(images).float()
                correct += int((logits.argmax(dim=1) == labels).sum())
                loss += functional.cross_entropy(logits, labels, reduction="sum").item()
                count += len(labels)
        return {"accuracy": 100 * correct / count, "loss": loss / count}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients, and back to the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class Labelled:
    """Images of a split as they come: uint8 pixels, shape (n, h, w), and int64 labels."""

    images: Tensor
    labels: Tensor


class InMemoryImages(Classification):
    """A task of grey images that are small enough to stay on the device.

    Training images are shifted by up to `shift` pixels in each direction and, if `flip`, mirrored
    half of the time.
    """

    size: int
    shift: int = 0
    flip: bool = False

    @abstractmethod
    def read(self) -> dict[Split, Labelled]:
        """Return the three splits; raise UserError where the data cannot be had."""

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return one blank image."""
        return (torch.zeros(1, 1, self.size, self.size),)

    def load(self, device: torch.device) -> None:
        """Read the data and keep it on `device`, normalised by the training images."""
        splits = self.read()
        self._digest = _digest(splits)
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
        self._padded = functional.pad(self._splits["train"][0][:, 0], [self.shift] * 4, value=blank)

    def data_digest(self) -> str:
        """Return the sha256 over pixels and labels of all splits, before normalisation."""
        return self._digest

    def batches(
        self,
        seed: int,
        *,
        batch_size: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """Yield this rank's slice of every batch; the last, incomplete batch is left out.

        Raises:
            UserError: if the ranks cannot share a batch equally.
        """
        if batch_size % world:
            raise UserError(f"batch_size: {batch_size} images cannot be shared by {world} ranks")
        labels = self._splits["train"][1]
        count = len(labels)
        device = labels.device
        order = torch.randperm(count, generator=_generator(seed, "order")).to(device)
        moves = _moves(self.shift, self.flip, count, seed).to(device)
        share = batch_size // world
        for index in range(start, count // batch_size):
            first = index * batch_size + rank * share
            chosen = order[first : first + share]
            yield self._moved(chosen, moves[first : first + share]), labels[chosen]

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
        span = torch.arange(self.size, device=chosen.device)
        rows = moves[:, 0, None] + span
        columns = moves[:, 1, None] + torch.where(moves[:, 2, None] > 0, span.flip(0), span)
        cut = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cut[:, None]


def _moves(shift: int, flip: bool, count: int, seed: int) -> Tensor:
    """Draw row and column offset into the padded frame and the mirror flag, shape (count, 3)."""
    generator = _generator(seed, "augment")
    offsets = torch.randint(0, 2 * shift + 1, (count, 2), generator=generator)
    mirrored = torch.randint(0, 2 if flip else 1, (count, 1), generator=generator)
    return torch.cat([offsets, mirrored], dim=1)


def _generator(seed: int, purpose: str) -> torch.Generator:
    # on the CPU whatever the device: the order is the same everywhere
    return torch.Generator().manual_seed(stream_seed(seed, purpose))


def _digest(splits: dict[Split, Labelled]) -> str:
    total = hashlib.sha256()
    for name in sorted(splits):
        split = splits[name]
        total.update(f"{name} {tuple(split.images.shape)}".encode())
        total.update(split.images.contiguous().numpy().tobytes())
        total.update(split.labels.numpy().tobytes())
    return total.hexdigest()


def fixed_order(count: int) -> Tensor:
    """Return the one permutation of `count` examples that every trial's splits are cut from."""
    return torch.randperm(count, generator=_generator(0, "split"))

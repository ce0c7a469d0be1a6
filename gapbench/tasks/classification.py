"""The common part of image classification tasks: loss, accuracy, and images in memory.

The code that works on tensors is in `images`, and is imported where it is used, so that reports can
use tasks without loading torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from gapbench.errors import UserError
from gapbench.tasks.task import Batch, Metric, Recipe, Resources, Split, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gapbench.tasks.images.batching import Images
    from gapbench.tasks.images.memory import InMemoryDataset, Labelled


class Dataset(Protocol):
    """The loaded splits of a task.

    Attributes:
        digest: sha256 over the data and their splits.
    """

    digest: str

    def batches(
        self, seed: int, *, batch_size: int, start: int, rank: int, world: int
    ) -> Iterator[Images]:
        """Yield this rank's slice of every training batch of the epoch of `seed`."""
        ...

    def examples(self, split: Split) -> Iterator[Images]:
        """Yield the batches of a split without augmentation."""
        ...


def accuracy(classes: int) -> Metric:
    """Return the accuracy of `classes` classes of equal size; collapsed is 1.5 times chance."""
    return Metric("accuracy", margin=0.3, collapsed=150 / classes)


def checked_steps(epoch_steps: int | None) -> int | None:
    """Return the optimiser steps of an epoch; None makes each pass over the data an epoch.

    Raises:
        UserError: if the number of steps is not positive.
    """
    if epoch_steps is not None and epoch_steps < 1:
        raise UserError(f"epoch_steps: {epoch_steps} is not possible: give 1 or more")
    return epoch_steps


PLAIN = (bool, int, float, str, type(None), Recipe, Resources)  # what tasks are told in words
_loaded: WeakValueDictionary[str, InMemoryDataset] = WeakValueDictionary()


class Classification(Task):
    """A task with one label per image; a batch is (images, labels)."""

    metric = Metric("accuracy", margin=0.3)
    capturable = True

    _dataset: Dataset  # what `load` makes

    def data_digest(self) -> str:
        """Return the sha256 of the data set."""
        return self._dataset.digest

    def batches(
        self, seed: int, *, batch_size: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yield this rank's slice of every batch; the last, incomplete batch is left out.

        Raises:
            UserError: if the ranks cannot share a batch equally, or a file cannot be decoded.
        """
        return self._dataset.batches(
            seed, batch_size=batch_size, start=start, rank=rank, world=world
        )

    def examples(self, split: Split) -> Iterator[Images]:
        """Yield the images of `split` without augmentation, with labels, in large batches."""
        return self._dataset.examples(split)

    def loss(self, model: nn.Module, batch: Batch, recipe: Recipe) -> Tensor:
        """Return the mean cross-entropy of a batch, with the recipe's label smoothing."""
        from torch.nn import functional

        images, labels = batch
        return functional.cross_entropy(
            model(images), labels, label_smoothing=recipe.label_smoothing
        )

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return `accuracy` in percent and the mean cross-entropy `loss` over `split`."""
        from gapbench.tasks.images.scoring import evaluate

        return evaluate(model, self.examples(split))


class InMemoryImages(Classification):
    """A task of square images that are small enough to stay on the device.

    Attributes:
        size: side of an image in pixels.
        channels: channels of an image: 1 for grey, 3 for colour.
        shift: maximum random shift of training images in each direction, in pixels.
        flip: whether training images are mirrored with probability 1/2.
    """

    size: int
    channels: int = 1
    shift: int = 0
    flip: bool = False

    @abstractmethod
    def read(self) -> dict[Split, Labelled]:
        """Return the three splits; raise UserError if the data are not available."""

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return one blank image."""
        import torch

        return (torch.zeros(1, self.channels, self.size, self.size),)

    def load(self, device: torch.device) -> None:
        """Read the data, normalise them by the training images, and keep them on `device`.

        Equal tasks of a process share the data, so one of sixteen trials in lanes reads them.
        """
        from gapbench.tasks.images.memory import InMemoryDataset

        key = _data_key(self, device)
        found = _loaded.get(key)
        if found is None:
            found = InMemoryDataset(self.read(), device, shift=self.shift, flip=self.flip)
            if key:
                _loaded[key] = found
        self._dataset = found


def _data_key(task: Task, device: torch.device) -> str:
    """Return the key of a task's data in this process, or "" if the data cannot be shared."""
    made = sorted(vars(task).items())
    plain = all(isinstance(value, PLAIN) for _, value in made)
    kind = f"{type(task).__module__}.{type(task).__qualname__} {id(type(task))}"
    return f"{kind} {device} {made}" if plain else ""

"""Fashion-MNIST: 14 x 14 pixels for two cores (scale mini), or 28 x 28 pixels (scale small)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from gapbench.base.identity import Neutral
from gapbench.errors import UserError
from gapbench.tasks.classification import InMemoryImages, accuracy, checked_steps
from gapbench.tasks.data.sources import FASHION_MNIST, obtain, read_idx
from gapbench.tasks.task import Recipe, Resources, Split, task

if TYPE_CHECKING:
    from torch import nn

    from gapbench.tasks.images.memory import Labelled

VALIDATION = 5000  # of the 60,000 training images, the same for every size
AVAILABLE = 60_000 - VALIDATION


@task("fashion_mnist", version=1)
class FashionMnist(InMemoryImages):
    """A small ResNet on images of clothes in ten classes.

    Args:
        size: side of an image in pixels: 14 averages blocks of 2 x 2 pixels; 28 keeps the images.
        train_examples: number of training images, of 55,000.
        width: channels of the network's first stage.
        depth: the network's depth, 6n + 2.
        epoch_steps: optimiser steps of an epoch; an epoch continues the pass of the epoch before.
            None makes each pass over the data an epoch. With a number of steps, all labelled images
            outside training, validation and test form the split "heldout".
        augment: whether training images are shifted by up to a pixel and mirrored with probability
            1/2. The default is False: at scale mini (48 epochs, one seed) augmentation raised the
            validation accuracy of dense training by 0.6 points and lowered C-GaP's by 0.5 points.

    Raises:
        UserError: if the data set has fewer than `train_examples` training images.
    """

    first_layer = "conv1.weight"
    metric = accuracy(10)

    def __init__(
        self,
        *,
        size: Literal[14, 28] = 14,
        train_examples: int = 12_800,
        width: int = 16,
        depth: int = 8,
        augment: bool = False,
        epoch_steps: Annotated[int | None, Neutral(None)] = None,
    ) -> None:
        if not 1 <= train_examples <= AVAILABLE:
            raise UserError(f"train_examples: {train_examples} is not within 1 to {AVAILABLE}")
        self.epoch_steps = checked_steps(epoch_steps)
        self.heldout = epoch_steps is not None and train_examples < AVAILABLE
        self.size = size
        self.train_examples = train_examples
        self.width = width
        self.depth = depth
        self.shift, self.flip = (1, True) if augment else (0, False)
        self.recipe = Recipe(
            epochs=(32 if size == 14 else 64) if epoch_steps is None else 10,
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            weight_decay=5e-4,
            bf16=size == 28,  # meant for a GPU; not every processor is fast at it
            channels_last=True,
        )
        self.resources = Resources() if size == 14 else Resources(gpus=1, cpus=4, hours=2.0)

    def build_model(self) -> nn.Module:
        """Return a new small ResNet."""
        from gapbench.tasks.models.small_resnet import SmallResNet

        return SmallResNet(depth=self.depth, width=self.width)

    def prepare(self, data_dir: Path | None) -> None:
        """Download the four files, into `data_dir` if given."""
        obtain(FASHION_MNIST, data_dir)

    def read(self) -> dict[Split, Labelled]:
        """Return the splits; the test split is the data set's test set."""
        from gapbench.tasks.images.memory import Labelled, split_off

        files = obtain(FASHION_MNIST)
        train, test = (
            Labelled(read_idx(files[f"{part}-images"]), read_idx(files[f"{part}-labels"]).long())
            for part in ("train", "test")
        )
        splits = split_off(train, VALIDATION)
        found: dict[Split, Labelled] = {
            "val": self._sized(splits["val"]),
            "train": self._sized(splits["train"], slice(self.train_examples)),
            "test": self._sized(test),
        }
        if self.heldout:
            found["heldout"] = self._sized(splits["train"], slice(self.train_examples, None))
        return found

    def _sized(self, split: Labelled, part: slice = slice(None)) -> Labelled:
        """Return a part of a split, or the whole split, at the task's image size."""
        from gapbench.tasks.images.memory import Labelled

        images, labels = split.images[part], split.labels[part]
        if self.size == 28:
            return Labelled(images, labels)
        import torch
        from torch.nn import functional

        halved = functional.avg_pool2d(images[:, None].float(), 2)[:, 0]
        return Labelled(halved.round().to(torch.uint8), labels)

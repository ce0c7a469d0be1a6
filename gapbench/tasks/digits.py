"""Handwritten digits of scikit-learn, 8 x 8 pixels: no download, a few seconds per trial."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gapbench.base.identity import Neutral
from gapbench.tasks.classification import InMemoryImages, accuracy, checked_steps
from gapbench.tasks.task import Recipe, Resources, Split, task

if TYPE_CHECKING:
    from torch import nn

    from gapbench.tasks.images.memory import Labelled

TRAIN, VALIDATION = 1152, 256  # of 1797 images; the rest is the test split


@task("digits", version=1)
class Digits(InMemoryImages):
    """ResNet-8 on 1152 images: 10 prunable layers.

    Args:
        width: channels of the network's first stage.
        epoch_steps: optimiser steps of an epoch; an epoch continues the pass of the epoch before.
            None makes each pass over the data an epoch.

    Raises:
        UserError: if `epoch_steps` is not positive.
    """

    metric = accuracy(10)
    recipe = Recipe(
        epochs=6,
        batch_size=64,
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        warmup_epochs=1,
    )
    resources = Resources(hours=0.1)
    train_examples = TRAIN
    first_layer = "conv1.weight"
    size = 8

    def __init__(
        self,
        *,
        width: Annotated[int, Neutral(8)] = 8,
        epoch_steps: Annotated[int | None, Neutral(None)] = None,
    ) -> None:
        self.width = width
        self.epoch_steps = checked_steps(epoch_steps)

    def build_model(self) -> nn.Module:
        """Return a new ResNet-8."""
        from gapbench.tasks.models.small_resnet import SmallResNet

        return SmallResNet(depth=8, width=self.width)

    def read(self) -> dict[Split, Labelled]:
        """Return the splits of the images that come with scikit-learn."""
        import torch

        from gapbench.tasks.images.batching import fixed_order
        from gapbench.tasks.images.memory import Labelled

        pixels, labels = _scikit_learns()
        order = fixed_order(len(labels))
        images = torch.as_tensor(pixels * 15).to(torch.uint8).view(-1, 8, 8)[order]
        answers = torch.as_tensor(labels, dtype=torch.int64)[order]
        bounds: dict[Split, slice] = {
            "train": slice(0, TRAIN),
            "val": slice(TRAIN, TRAIN + VALIDATION),
            "test": slice(TRAIN + VALIDATION, None),
        }
        return {name: Labelled(images[cut], answers[cut]) for name, cut in bounds.items()}


def _scikit_learns() -> tuple[Any, Any]:
    """Return pixels from 0 to 16, shape (1797, 64), and labels.

    The result equals the data of `sklearn.datasets.load_digits`. The import of that module would
    take a second of processor time, a fifth of a whole smoke trial.
    """
    import numpy as np

    spec = find_spec("sklearn")
    file = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else None
    if file is None or not file.exists():
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return pixels, labels
    lines = np.loadtxt(file, delimiter=",")
    return lines[:, :-1], lines[:, -1]

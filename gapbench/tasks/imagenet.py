"""ResNet-50 v1.5 on ImageNet, the paper's image task. Its images cannot be read yet.

Model, recipe and sizes are here, so that plans and their cost are computed for the paper's scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError
from gapbench.tasks.classification import Classification, Images
from gapbench.tasks.task import Batch, Recipe, Resources, Split, task

# of the 1,281,167 training images; the official validation set is the test split
VALIDATION = 10_000
NO_DATA = "imagenet: this version cannot read ImageNet's images; --dry-run is what works"
STAGES = (("conv1.weight", "layer1.*"), ("layer2.*",), ("layer3.*",), ("layer4.*", "fc.weight"))


@task("imagenet", version=1)
class ImageNet(Classification):
    """torchvision's ResNet-50; 100 epochs are the budget of RigL's dense training."""

    recipe = Recipe(
        epochs=100,
        batch_size=2048,
        lr=2.048,
        momentum=0.875,
        weight_decay=2**-15,
        warmup_epochs=8,
        label_smoothing=0.1,
        bf16=True,
        channels_last=True,
    )
    resources = Resources(gpus=8, cpus=96, memory_gb=256, hours=48)
    train_examples = 1_281_167 - VALIDATION
    first_layer = "conv1.weight"

    def build_model(self) -> nn.Module:
        """Return a new ResNet-50: 25.6 M parameters, 54 prunable layers."""
        model: nn.Module = load_torchvision("torchvision.models").resnet50(weights=None)
        return model

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return one blank image of 224 px."""
        return (torch.zeros(1, 3, 224, 224),)

    def partition_patterns(self, partitions: int) -> tuple[tuple[str, ...], ...] | None:
        """Return the paper's four partitions, consecutive by stage."""
        return STAGES if partitions == 4 else None

    def prepare(self, data_dir: Path | None) -> None:
        """Raise UserError: there is nothing yet that reads the data."""
        raise UserError(NO_DATA)

    def load(self, device: torch.device) -> None:
        """Raise UserError: there is nothing yet that reads the data."""
        raise UserError(NO_DATA)

    def data_digest(self) -> str:
        """Raise UserError, as `load` does."""
        raise UserError(NO_DATA)

    def batches(
        self, seed: int, *, batch_size: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Raise UserError, as `load` does."""
        raise UserError(NO_DATA)

    def examples(self, split: Split) -> Iterator[Images]:
        """Raise UserError, as `load` does."""
        raise UserError(NO_DATA)

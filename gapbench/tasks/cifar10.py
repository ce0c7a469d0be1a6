"""CIFAR-10: colour images of 32 x 32 pixels in ten classes, with RigL's recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from gapbench.base.identity import Neutral
from gapbench.errors import UserError
from gapbench.tasks.classification import InMemoryImages, accuracy
from gapbench.tasks.data import cifar
from gapbench.tasks.task import Recipe, Resources, Split, task

if TYPE_CHECKING:
    from torch import nn

    from gapbench.tasks.images.memory import Labelled

Model = Literal["wrn-22-2", "resnet-20", "resnet-32"]


@task("cifar10", version=1)
class Cifar10(InMemoryImages):
    """A wide or a small ResNet on CIFAR-10; training images are shifted and mirrored.

    The recipe is RigL's recipe for WRN-22-2: 250 epochs; the learning rate is divided by five after
    30,000, 60,000 and 90,000 of 97,656 steps.

    Args:
        model: WRN-22-2, or He et al.'s ResNet-20 or ResNet-32 with 1 x 1 shortcuts.
        width: channels of the first stage, before the widening of a wide network.
        validation: number of training images that form the validation split; published results
            use all 50,000 images for training.

    Raises:
        UserError: if `validation` leaves no training images.

    Source: U. Evci et al., Rigging the Lottery, 2020, section 4.2, and its code, cifar_resnet/.
    """

    first_layer = "conv1.weight"
    size = 32
    channels = 3
    shift, flip = 4, True
    classes: ClassVar[int] = 10
    metric = accuracy(classes)
    files: ClassVar[cifar.Name] = "CIFAR10"
    recipe = Recipe(
        epochs=250,
        batch_size=128,
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="step",
        milestones=(30_000 / 97_656, 60_000 / 97_656, 90_000 / 97_656),
        decay_factor=0.2,
        bf16=True,
        channels_last=True,
    )
    resources = Resources(gpus=1, cpus=4, hours=4.0)

    def __init__(
        self,
        *,
        model: Model = "wrn-22-2",
        validation: int = 5000,
        width: Annotated[int, Neutral(16)] = 16,
    ) -> None:
        if not 1 <= validation < cifar.IMAGES:
            raise UserError(f"validation: {validation} is not within 1 to {cifar.IMAGES - 1}")
        self.model = model
        self.width = width
        self.validation = validation
        self.train_examples = cifar.IMAGES - validation

    def build_model(self) -> nn.Module:
        """Return a new network of the architecture `model`."""
        from gapbench.tasks.models.small_resnet import SmallResNet
        from gapbench.tasks.models.wide_resnet import WideResNet

        if self.model == "wrn-22-2":
            return WideResNet(depth=22, widen=2, width=self.width, classes=self.classes)
        depth = int(self.model.removeprefix("resnet-"))
        return SmallResNet(depth=depth, width=self.width, channels=3, classes=self.classes)

    def prepare(self, data_dir: Path | None) -> None:
        """Download the files, unless they are present."""
        cifar.download(self.files, data_dir)

    def read(self) -> dict[Split, Labelled]:
        """Return the splits; the test split is the data set's test set."""
        import torch

        from gapbench.tasks.images.memory import Labelled, split_off

        def whole(train: bool) -> Labelled:
            found = cifar.reader(self.files, train=train)
            images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
            return Labelled(images, torch.tensor(found.targets))

        return {**split_off(whole(True), self.validation), "test": whole(False)}

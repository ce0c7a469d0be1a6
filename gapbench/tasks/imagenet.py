"""ResNet-50 v1.5 on ImageNet, the paper's image task, or on any images in class folders.

docs/imagenet.md has the values of the recipe, their sources, and the layout of the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gapbench.base.identity import Neutral
from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.errors import UserError
from gapbench.tasks.classification import Classification, accuracy
from gapbench.tasks.data.imagenet_files import Tree, find_root, read_trees
from gapbench.tasks.task import Recipe, Resources, task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IMAGES = 1_281_167  # for training; the official validation set is the test split
VALIDATION = 10_000
STAGES = (("conv1.weight", "layer1.*"), ("layer2.*",), ("layer3.*",), ("layer4.*", "fc.weight"))


@task("imagenet", version=1)
class ImageNet(Classification):
    """torchvision's ResNet-50; 100 epochs are the budget of RigL's dense training.

    Args:
        image_size: side of the network's square input in pixels.
        classes: number of class folders in train/ and in val/.
        train_examples: number of training images in train/, without the validation split.
        validation: number of images in train/ that form the validation split, for every seed.
        mixup: parameter of the beta distribution of mixup; 0 turns mixup off.
        zero_init: whether the last norm of each block starts at zero, so that blocks start as
            identities.
        width: channels of the first convolution; the channels of all other layers scale with it.
        compile: whether training uses torch.compile: faster on a GPU, with other bits.

    Raises:
        UserError: if an option is out of range.
    """

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
    first_layer = "conv1.weight"
    metric = accuracy(1000)

    def __init__(
        self,
        *,
        image_size: int = 224,
        classes: int = 1000,
        train_examples: int = IMAGES - VALIDATION,
        validation: int = VALIDATION,
        mixup: float = 0.2,
        zero_init: bool = False,
        compile: bool = False,
        width: Annotated[int, Neutral(64)] = 64,
    ) -> None:
        counts = {"classes": classes, "train_examples": train_examples, "validation": validation}
        for name, value in {**counts, "image_size": image_size, "width": width}.items():
            if value < 1:
                raise UserError(f"{name}: {value} is not possible: give 1 or more")
        if mixup < 0:
            raise UserError(f"mixup: {mixup} is not possible: give 0 or more")
        self.image_size = image_size
        self.classes = classes
        self.train_examples = train_examples
        self.validation = validation
        self.mixup = mixup
        self.zero_init = zero_init
        self.width = width
        self.compile = compile

    def build_model(self) -> nn.Module:
        """Return a new ResNet-50: 25.6 M parameters with 1,000 classes, 54 prunable layers."""
        options: dict[str, Any] = {
            "num_classes": self.classes,
            "zero_init_residual": self.zero_init,
        }
        if self.width != 64:
            from gapbench.tasks.models.narrow_resnet import narrow_resnet50

            return narrow_resnet50(self.width, **options)
        model: nn.Module = load_torchvision("torchvision.models").resnet50(weights=None, **options)
        return model

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return one blank image."""
        import torch

        return (torch.zeros(1, 3, self.image_size, self.image_size),)

    def partition_patterns(self, partitions: int) -> tuple[tuple[str, ...], ...] | None:
        """Return the name patterns of the paper's four partitions, consecutive by stage."""
        return STAGES if partitions == 4 else None

    def prepare(self, data_dir: Path | None) -> None:
        """Check the images, and decode each image once; nothing can be downloaded.

        Raises:
            UserError: if folders are missing or invalid; the message names the expected folders.
        """
        from gapbench.tasks.images.reading import undecodable

        lines = [line for tree in self._trees(data_dir) for line in undecodable(tree)]
        if lines:
            more = f" (and {len(lines) - 1} files more)" if len(lines) > 1 else ""
            raise UserError(lines[0] + more)

    def load(self, device: torch.device) -> None:
        """List the files and separate the validation split.

        Raises:
            UserError: if folders are missing, or do not match the options.
        """
        from gapbench.tasks.images.disk import ImageFolderDataset
        from gapbench.tasks.images.reading import require_decodable

        train, test = self._trees()
        require_decodable(test)
        self._dataset = ImageFolderDataset(
            train,
            test,
            device,
            validation=self.validation,
            size=self.image_size,
            mixup=self.mixup,
        )

    def _trees(self, data_dir: Path | None = None) -> tuple[Tree, Tree]:
        trees = read_trees(find_root("imagenet", data_dir), self.classes)
        found, wanted = len(trees[0].paths), self.train_examples + self.validation
        if found != wanted:
            fitting = found - self.validation
            advice = f", or set task_options.train_examples to {fitting}" if fitting > 0 else ""
            raise UserError(
                f"{trees[0].folder}: {found} images, not {wanted} (train_examples "
                f"{self.train_examples} + validation {self.validation}): complete it{advice}"
            )
        return trees

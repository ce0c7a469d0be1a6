"""CIFAR-100: images as in CIFAR-10, in a hundred classes."""

from __future__ import annotations

from typing import ClassVar

from gapbench.tasks.cifar10 import Cifar10
from gapbench.tasks.classification import accuracy
from gapbench.tasks.data import cifar
from gapbench.tasks.task import task


@task("cifar100", version=1)
class Cifar100(Cifar10):
    """The models and the recipe of the task cifar10 on CIFAR-100.

    Args:
        model: WRN-22-2, or He et al.'s ResNet-20 or ResNet-32 with 1 x 1 shortcuts.
        width: channels of the first stage, before the widening of a wide network.
        validation: number of training images that form the validation split.

    Raises:
        UserError: if `validation` leaves no training images.
    """

    classes: ClassVar[int] = 100
    metric = accuracy(classes)
    files: ClassVar[cifar.Name] = "CIFAR100"

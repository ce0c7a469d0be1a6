"""torchvision beside a CPU build of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gapbench.compat.torchvision_ops import load_torchvision


def test_models_train_and_transforms_work():
    torch.manual_seed(0)
    model = load_torchvision("torchvision.models").resnet18(num_classes=3)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert model.conv1.weight.grad.abs().sum() > 0
    transforms = load_torchvision("torchvision.transforms.v2")
    images = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(transforms.functional.horizontal_flip(images), images.flip(-1))


def test_a_plain_import_afterwards_gives_the_same_module():
    loaded = load_torchvision()
    import torchvision

    assert torchvision is loaded is load_torchvision()


IMPORT = """
from gapbench.compat import torchvision_ops
torchvision_ops.load_torchvision()
import torchvision
declared = torchvision_ops._library.cache_info().currsize == 1
print(declared, torchvision.extension._has_ops())
"""


@pytest.mark.slow
def test_operators_are_declared_only_where_the_extension_is_missing():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.stdout.split() in (["True", "False"], ["False", "True"]), done.stderr

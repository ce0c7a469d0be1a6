"""torchvision's ResNet-50 with fewer or more channels in all layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from gapbench.compat.torchvision_ops import load_torchvision


def narrow_resnet50(width: int, *, num_classes: int, **options: Any) -> nn.Module:
    """Return a ResNet-50 whose layers have width / 64 times as many channels.

    Args:
        width: channels of the first convolution.
        num_classes: number of outputs.
        options: further options of torchvision's ResNet.
    """
    resnet = load_torchvision("torchvision.models.resnet")

    class Narrow(resnet.ResNet):  # type: ignore[name-defined, misc]
        def _make_layer(self, block: Any, planes: int, *rest: Any, **more: Any) -> nn.Module:
            if not hasattr(self, "layer1"):  # what it has built before its first stage
                self.inplanes = width
                self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
            layer: nn.Module = super()._make_layer(block, planes * width // 64, *rest, **more)
            return layer

    model: nn.Module = Narrow(resnet.Bottleneck, [3, 4, 6, 3], num_classes=num_classes, **options)
    model.fc = nn.Linear(8 * width * resnet.Bottleneck.expansion, num_classes)
    return model

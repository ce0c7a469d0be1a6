"""The wide residual network of the CIFAR tasks."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from gapbench.errors import UserError


class WideResNet(nn.Module):
    """A residual network with norms before convolutions, of depth 6n + 4 (Zagoruyko and Komodakis).

    Args:
        depth: layers with weights along the longest path; the network has n blocks per stage.
        widen: factor by which the stages' channels w, 2w and 4w are multiplied.
        width: w, the channels of the first convolution.
        channels: channels of the images.
        classes: number of outputs.

    Raises:
        UserError: if `depth` is not 6n + 4, or `widen` or `width` is below 1.

    Source: S. Zagoruyko and N. Komodakis, Wide Residual Networks, 2016, table 1, block B(3, 3).
    """

    def __init__(
        self, *, depth: int, widen: int, width: int = 16, channels: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise UserError(
                f"depth: {depth} is not a depth of a wide ResNet: valid: 10, 16, 22, ..."
            )
        if widen < 1:
            raise UserError(f"widen: {widen} is not positive")
        if width < 1:
            raise UserError(f"width: {width} is not positive")
        widths = [width, width * widen, 2 * width * widen, 4 * width * widen]
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.layer1 = _stage(blocks, widths[0], widths[1], stride=1)
        self.layer2 = _stage(blocks, widths[1], widths[2], stride=2)
        self.layer3 = _stage(blocks, widths[2], widths[3], stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, classes), of images of shape (n, channels, h, w)."""
        hidden = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        hidden = functional.relu(self.bn1(hidden))
        return cast(Tensor, self.fc(hidden.mean(dim=(2, 3))))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.downsample = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        )

    def forward(self, images: Tensor) -> Tensor:
        normed = functional.relu(self.bn1(images))
        shortcut = images if self.downsample is None else self.downsample(normed)
        hidden = functional.relu(self.bn2(self.conv1(normed)))
        return cast(Tensor, self.conv2(hidden) + shortcut)


def _stage(blocks: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))

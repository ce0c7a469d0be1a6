"""The small residual network of the image tasks, for images with sides of 8 to 32 pixels."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from gapbench.errors import UserError


class SmallResNet(nn.Module):
    """A residual network of three stages, widths w, 2w and 4w (He et al., 2016, section 4.2).

    At the start of a stage the shortcut is a 1x1 convolution (option B of the paper).

    Args:
        depth: layers with weights along the longest path, 6n + 2.
        width: channels of the first stage.
        channels: channels of the images.
        classes: number of outputs.

    Raises:
        UserError: if `depth` is not 6n + 2 or `width` is below 1.
    """

    def __init__(self, *, depth: int, width: int, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise UserError(
                f"depth: {depth} is not a depth of a small ResNet: valid: 8, 14, 20, ..."
            )
        if width < 1:
            raise UserError(f"width: {width} is not positive")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, stride=1)
        self.layer2 = _stage(blocks, width, 2 * width, stride=2)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.fc = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, classes), of images of shape (n, channels, h, w)."""
        hidden = functional.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return cast(Tensor, self.fc(hidden.mean(dim=(2, 3))))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(images)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.downsample(images))


def _stage(blocks: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))

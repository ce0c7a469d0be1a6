"""The models that benchmarks train, and their batches of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.tasks.models.small_resnet import SmallResNet

CLASSES = 10
Batch = tuple[Tensor, Tensor]


class Block(nn.Module):
    """A pre-norm Transformer layer whose every weight is that of a `Linear` module.

    Packages that prune modules cannot reach inside torch's own attention. The norms are without
    weights, since rigl-torch would prune those too.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape, (n, length, width)."""
        normed = functional.layer_norm(tokens, tokens.shape[-1:])
        heads = [
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*heads)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        normed = functional.layer_norm(tokens, tokens.shape[-1:])
        return tokens + cast(Tensor, self.down(functional.relu(self.up(normed))))


class Stack(nn.Module):
    """Transformer layers, and a classifier of the mean token."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(layers)))
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, shape (n, classes)."""
        return cast(Tensor, self.classifier(self.blocks(tokens).mean(1)))


def resnet20() -> nn.Module:
    """Return the CIFAR network of the image tasks, 0.27 million weights."""
    return SmallResNet(depth=20, width=16, channels=3, classes=CLASSES)


def resnet50() -> nn.Module:
    """Return ImageNet's network, 25.5 million weights."""
    return cast(nn.Module, load_torchvision("torchvision.models").resnet50())


def images(count: int, size: int) -> Callable[[], Batch]:
    """Return what makes a batch of square images and labels."""
    return lambda: (torch.randn(count, 3, size, size), torch.randint(CLASSES, (count,)))


def tokens(count: int, length: int, width: int) -> Callable[[], Batch]:
    """Return what makes a batch of token sequences and labels."""
    return lambda: (torch.randn(count, length, width), torch.randint(CLASSES, (count,)))


def optimizer_of(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with momentum or AdamW over all parameters, at a rate that keeps steps tame."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "SGD": torch.optim.SGD,
        "AdamW": torch.optim.AdamW,
    }
    options: dict[str, Any] = {"SGD": {"momentum": 0.9}, "AdamW": {}}[kind]
    return kinds[kind](model.parameters(), lr=1e-4, weight_decay=1e-4, **options)

"""A small model with everything a mask can meet: convolution, norm, linear layers, biases."""

from __future__ import annotations

import torch
from torch import nn

from gapbench.engine.sparsifier import Sparsifier

STEPS = 5


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


def optimizer_of(model: nn.Module, kind: str) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def loss_of_step(model: nn.Module, step: int) -> torch.Tensor:
    """Return the loss on data that follow from the step's number alone."""
    generator = torch.Generator().manual_seed(1000 + step)
    images = torch.randn(8, 1, 6, 6, generator=generator)
    labels = torch.randint(5, (8,), generator=generator)
    model.train()
    return nn.functional.cross_entropy(model(images), labels)


def train_steps(model: nn.Module, sparsifier: Sparsifier, steps: int) -> None:
    for _ in range(steps):
        loss_of_step(model, sparsifier.steps).backward()
        sparsifier.step()
        sparsifier.optimizer.zero_grad(set_to_none=True)

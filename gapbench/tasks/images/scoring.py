"""Accuracy and cross-entropy of a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


def evaluate(model: nn.Module, examples: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return `accuracy` in percent and the mean cross-entropy `loss` over batches of examples."""
    correct, loss, count = 0, 0.0, 0
    with _evaluating(model):
        for images, labels in examples:
            logits = model(images).float()
            correct += int((logits.argmax(dim=1) == labels).sum())
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            count += len(labels)
    return {"accuracy": 100 * correct / count, "loss": loss / count}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients, and back to the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training

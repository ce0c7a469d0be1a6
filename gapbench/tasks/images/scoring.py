"""Accuracy and cross-entropy of a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


def evaluate(model: nn.Module, examples: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return `accuracy` in percent and the mean cross-entropy `loss` over batches of examples."""
    correct: list[Tensor] = []
    losses: list[Tensor] = []
    count = 0
    with _evaluating(model):
        for images, labels in examples:
            logits = model(images).float()
            correct.append((logits.argmax(dim=1) == labels).sum())
            losses.append(functional.cross_entropy(logits, labels, reduction="sum"))
            count += len(labels)
    right, loss = torch.stack(correct).tolist(), torch.stack(losses).tolist()  # waits once for each
    return {"accuracy": 100 * sum(right) / count, "loss": sum(loss) / count}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients; restore every module's mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training

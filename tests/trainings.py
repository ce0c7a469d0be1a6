"""Short trainings of every method on images of noise; they need nothing but torch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from gapbench.methods.method import methods, plan
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.classification import InMemoryImages, accuracy
from gapbench.tasks.images.memory import Labelled
from gapbench.tasks.models.small_resnet import SmallResNet
from gapbench.tasks.task import Recipe
from gapbench.training.setup import Settings, Training, build

EPOCHS, STEPS = 24, 4


class Noise(InMemoryImages):
    """ResNet-8 on random pixels; its evaluations cost nothing.

    Args:
        steps: optimiser steps of an epoch.
        width: channels of the network's first stage.
        depth: of the network.
        size: pixels of a side.
        count: training images.
    """

    name, version = "noise", 1
    metric = accuracy(10)
    recipe = Recipe(epochs=EPOCHS, batch_size=16, lr=0.1, nesterov=True, weight_decay=5e-4)
    first_layer = "conv1.weight"
    flip, shift = True, 1

    def __init__(
        self, steps: int = STEPS, width: int = 2, depth: int = 8, size: int = 8, count: int = 200
    ) -> None:
        self.epoch_steps = steps
        self.width, self.depth, self.size, self.train_examples = width, depth, size, count

    def build_model(self) -> nn.Module:
        return SmallResNet(depth=self.depth, width=self.width)

    def read(self):
        generator = torch.Generator().manual_seed(0)
        shape = (self.train_examples, self.size, self.size)
        pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.randint(10, shape[:1], generator=generator)
        images = Labelled(pixels, labels)
        return {"train": images, "val": images, "test": images}

    def evaluate(self, model, split):
        return {"loss": 0.0, "accuracy": 0.0}


def training_of(
    method: str,
    device: torch.device,
    task: Noise | None = None,
    fused: bool | None = None,
    **recipe: Any,
) -> Training:
    """Return a training by a method with its options of tests, at sparsity 0.8."""
    task = task or Noise()
    task.load(device)
    model = task.build_model()
    layers = layers_of(model, task.prunable(model))
    chosen = plan(method, layers, EPOCHS, seed=3, **methods[method].small)
    dense, learned = chosen.dense_at_end, chosen.budget == "emergent"
    settings = Settings(
        recipe=task.recipe.model_copy(update=recipe),
        plan=chosen,
        distribution="dense" if dense else "emergent" if learned else "uniform",
        first_layer="sparse",
        sparsity=0.0 if dense or learned else 0.8,
        seed=3,
    )
    return build(task, settings, device, fused=fused)


class Quiet:
    """A recorder of a training that keeps nothing."""

    def line(self, line: Any) -> None:
        pass

    def ask(self, training: Any) -> str:
        return "go"

    def checkpoint(self, training: Any) -> None:
        pass

    def progress(self, training: Any, metrics: Any) -> None:
        pass


class Stopping(Quiet):
    """Stops a training after some steps, and keeps its state."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.state: dict[str, Any] = {}

    def ask(self, training: Any) -> str:
        return "stop" if training.sparsifier.steps == self.steps else "go"

    def checkpoint(self, training: Any) -> None:
        self.state = copy.deepcopy(training.state_dict())


def assert_equal_states(one: Any, other: Any) -> None:
    """Compare two nested states bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal_states(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        for left, right in zip(one, other, strict=True):
            assert_equal_states(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other

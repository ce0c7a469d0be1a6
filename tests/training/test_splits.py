"""Which split is looked at when, and that none stands for another."""

from __future__ import annotations

import pytest
import torch

from gapbench.methods.method import plan
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.digits import Digits
from gapbench.tasks.images.memory import Labelled
from gapbench.training.loop import evaluate, finish, train
from gapbench.training.setup import Settings, build
from tests.trainings import Quiet

SIZES = {"train": 128, "val": 40, "test": 60}
RIGHT = {"train": 3, "val": 5, "test": 7}  # the class of all pictures of a split


class OneClassASplit(Digits):
    """Blank pictures, whose class tells the split; what is evaluated is recorded."""

    def __init__(self):
        super().__init__()
        self.evaluated = []
        self.train_examples = SIZES["train"]

    def read(self):
        drawn = torch.Generator().manual_seed(0)
        return {
            name: Labelled(
                torch.randint(256, (count, 8, 8), generator=drawn, dtype=torch.uint8),
                torch.full((count,), RIGHT[name]),
            )
            for name, count in SIZES.items()
        }

    def evaluate(self, model, split):
        self.evaluated.append(split)
        return super().evaluate(model, split)


@pytest.fixture
def training():
    task = OneClassASplit()
    task.load(torch.device("cpu"))
    model = task.build_model()
    layers = layers_of(model, task.prunable(model))
    settings = Settings(
        recipe=Digits.recipe,
        plan=plan("c_gap", layers, 4, partitions=2, steps=2, step_epochs=1),
        distribution="uniform",
        first_layer="sparse",
        sparsity=0.5,
        seed=0,
    )
    return build(task, settings, torch.device("cpu"))


def test_training_looks_at_validation_only_and_the_end_once_at_the_test_split(training):
    train(training, Quiet())
    assert set(training.task.evaluated) == {"val"}
    training.task.evaluated.clear()
    final = finish(training)
    assert training.task.evaluated == ["val", "test"]
    assert final.val.keys() == {"val/accuracy", "val/loss"}
    assert final.test.keys() == {"test/accuracy", "test/loss"}


@pytest.mark.parametrize("split", SIZES)
def test_a_model_that_answers_one_splits_class_is_right_on_that_split_alone(training, split):
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.zero_()
        training.model.fc.bias[RIGHT[split]] = 1.0
    for other in SIZES:
        found = evaluate(training, other)[f"{other}/accuracy"]
        assert found == (100.0 if other == split else 0.0)


def test_training_draws_from_the_training_split_alone(training):
    for images, labels in training.task.batches(5, batch_size=32):
        assert len(images) == 32
        assert set(labels.tolist()) == {RIGHT["train"]}

"""Streams: epochs of a fixed number of steps share passes over the training data."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from gapbench.errors import UserError
from gapbench.methods.method import plan
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.digits import Digits
from gapbench.tasks.fashion_mnist import FashionMnist
from gapbench.training import loop
from gapbench.training.setup import Settings, build
from tests.trainings import Quiet

BATCH = 64  # of 1152 images: 18 batches a pass


def digits():
    task = Digits(epoch_steps=7)
    task.load(torch.device("cpu"))
    return task


def images_of(task, epochs, seed=0, start=0, **ranks):
    """Return the images of some epochs, batch by batch, in the order of training."""
    for epoch in range(epochs):
        first = start if epoch == 0 else 0
        for number, begin, count in task.passes(epoch, first, BATCH):
            whole = task.batches(seed + number, batch_size=BATCH, start=begin, **ranks)
            yield from (images for images, _ in itertools.islice(whole, count))


def test_no_image_comes_twice_before_all_have_come():
    task = digits()
    batches = list(images_of(task, 8))
    assert len(batches) == 56 == 8 * task.steps_per_epoch(BATCH)
    for first in (0, 18, 36):
        a_pass = torch.cat(batches[first : first + 18]).flatten(1)
        assert len(a_pass) == 1152
        known = torch.cat([images for images, _ in task.batches(0, batch_size=BATCH)]).flatten(1)
        assert torch.equal(a_pass.sort(0).values, known.sort(0).values)
    assert not torch.equal(batches[0], batches[18])  # another order


@pytest.mark.parametrize("start", range(7))
def test_an_epoch_goes_on_where_it_was_left(start):
    task = digits()
    whole = list(images_of(task, 3))
    for one, other in zip(images_of(task, 3, start=start), whole[start:], strict=True):
        assert torch.equal(one, other)


def test_ranks_share_each_batch():
    task = digits()
    shares = [list(images_of(task, 4, rank=rank, world=2)) for rank in range(2)]
    for one, other, whole in zip(*shares, images_of(task, 4), strict=True):
        assert torch.equal(torch.cat([one, other]), whole)


@pytest.mark.parametrize("steps", [1, 18, 19, 40])
def test_epochs_may_be_shorter_and_longer_than_a_pass(steps):
    task = digits()
    task.epoch_steps = steps
    places = [place for epoch in range(5) for place in task.passes(epoch, 0, BATCH)]
    batches = [(number, first + i) for number, first, count in places for i in range(count)]
    assert batches == [divmod(index, 18) for index in range(5 * steps)]


def test_resuming_in_a_stream_changes_no_bit():
    def fresh():
        task = digits()
        layers = layers_of(task.build_model(), ("layer1.0.conv1.weight", "fc.weight"))
        built = plan("c_gap", layers, 6, partitions=2, steps=2, step_epochs=2)
        settings = Settings(
            recipe=task.recipe, plan=built, distribution="uniform", first_layer="dense",
            sparsity=0.8, seed=3,
        )  # fmt: skip
        return build(task, settings, torch.device("cpu"))

    straight = fresh()
    loop.train(straight, Quiet())
    first = fresh()
    loop.train(first, Quiet(), until=3)
    state = copy.deepcopy(first.state_dict())
    second = fresh()
    second.load_state_dict(state)
    loop.change_phase(second, Quiet(), {})
    loop.train(second, Quiet())
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert straight.sparsifier.steps == 6 * 7


def test_labelled_images_that_nothing_uses_are_held_out(fashion_mnist_data):
    task = FashionMnist(train_examples=50_000, epoch_steps=100)
    assert task.heldout and task.steps_per_epoch(128) == 100
    splits = task.read()
    sizes = {name: len(split.labels) for name, split in splits.items()}
    assert sizes == {"val": 5000, "train": 50_000, "heldout": 5000, "test": 10_000}
    whole = FashionMnist(train_examples=55_000).read()["train"].images
    parts = torch.cat([splits["train"].images, splits["heldout"].images])
    assert torch.equal(parts, whole)
    assert not FashionMnist(train_examples=55_000, epoch_steps=100).heldout
    assert not FashionMnist().heldout and FashionMnist().epoch_steps is None
    with pytest.raises(UserError, match="epoch_steps: 0 is not possible: give 1 or more"):
        FashionMnist(epoch_steps=0)


def test_examples_of_an_epoch_are_counted_for_its_operations():
    assert FashionMnist(epoch_steps=100).epoch_examples(128) == 12_800
    assert FashionMnist(train_examples=12_900).epoch_examples(128) == 12_900  # as ever

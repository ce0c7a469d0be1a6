"""Captured steps are eager ones, bit for bit, on a GPU."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from torch.nn import functional

from gapbench.methods.method import methods
from gapbench.training.loop import Interrupted, train, train_step
from gapbench.training.step import CapturedStep, EagerStep
from tests.trainings import Noise, Quiet, Stopping, assert_equal_states, training_of

KINDS = {
    "bf16": {"bf16": True},
    "clip_norm": {"clip_norm": 0.1},
    "channels_last": {"channels_last": True},
    "bf16, channels_last": {"bf16": True, "channels_last": True},
    "label_smoothing": {"label_smoothing": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.003},
}


def captured(method, gpu, task=None, **recipe):
    training = training_of(method, gpu, task, **recipe)
    assert isinstance(training.step, CapturedStep)
    return training


def eager(method, gpu, task=None, **recipe):
    training = captured(method, gpu, task, **recipe)
    training.step = training.step._eager
    return training


def both(method, gpu, make=Noise, **recipe):
    return eager(method, gpu, make(), **recipe), captured(method, gpu, make(), **recipe)


@pytest.mark.parametrize("method", list(methods))
def test_every_method_trains_to_the_same_bits_from_one_capture(method, gpu):
    one, other = both(method, gpu)
    train(one, Quiet())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that a step is not captured
        train(other, Quiet())
    assert_equal_states(one.state_dict(), other.state_dict())
    assert other.step.captures == 1
    assert bool(other.step.whole_captures) == (other.sparsifier.plan.transform is None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["rigl", "c_gap", "str"])
def test_every_kind_of_recipe_trains_to_the_same_bits(method, kind, gpu):
    one, other = both(method, gpu, **KINDS[kind])
    for training in (one, other):
        train(training, Quiet())
    assert_equal_states(one.state_dict(), other.state_dict())
    assert other.step.captures == 1


def resnet20():
    return Noise(steps=20, width=16, depth=20, size=32, count=1280)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_network_of_the_size_that_is_trained_has_the_same_bits(bf16, gpu):
    recipe = {"batch_size": 128, "bf16": bf16, "channels_last": bf16}
    one, other = both("rigl", gpu, resnet20, **recipe)
    again = eager("rigl", gpu, resnet20(), **recipe)
    for training in (one, again, other):
        train(training, Quiet(), until=4)
    assert_equal_states(one.state_dict(), again.state_dict())  # or eager steps differ themselves
    assert_equal_states(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("method", ["rigl", "set", "c_gap", "p_gap", "str"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(eager, eager), (eager, captured), (captured, eager), (captured, captured)],
    ids=lambda function: function.__name__,
)
def test_a_run_resumes_bitwise(method, before, after, gpu):
    whole = captured(method, gpu)
    train(whole, Quiet())
    stopping = Stopping(37)
    with pytest.raises(Interrupted):
        train(before(method, gpu), stopping)
    rest = after(method, gpu)
    rest.load_state_dict(stopping.state)
    train(rest, Quiet())
    assert_equal_states(whole.state_dict(), rest.state_dict())


def test_memory_that_is_exchanged_is_captured_anew(gpu):
    one, other = both("static", gpu)
    for training in (one, other):
        train(training, Quiet(), until=2)
        for param in training.model.parameters():
            param.data = param.data.clone()
        train(training, Quiet(), until=4)
    assert other.step.whole_captures == 2
    assert_equal_states(one.state_dict(), other.state_dict())


class Drawing(Noise):
    def loss(self, model, batch, recipe):
        images, labels = batch
        return super().loss(model, (functional.dropout(images, 0.5), labels), recipe)


class Reading(Noise):
    def loss(self, model, batch, recipe):
        return super().loss(model, batch, recipe) * (1 + batch[0].mean().item())


@pytest.mark.parametrize("task", [Drawing, Reading])
def test_a_loss_that_cannot_be_captured_is_computed_eagerly_and_said_so(task, gpu):
    one, other = both("rigl", gpu, task)
    train(one, Quiet(), until=2)
    with pytest.warns(UserWarning, match="steps are not captured"):
        train(other, Quiet(), until=2)
    assert other.step.captures == 0
    assert_equal_states(one.state_dict(), other.state_dict())
    after = captured("rigl", gpu)  # a capture that failed leaves nothing behind
    train(after, Quiet(), until=2)
    assert after.step.captures == 1


def test_trials_side_by_side_on_streams_of_their_own_train_as_they_do_alone(gpu):
    alone = eager("rigl", gpu)
    train(alone, Quiet())
    lanes = [captured("rigl", gpu) for _ in range(3)]
    failed = []

    def lane(training):
        try:
            with torch.cuda.stream(torch.cuda.Stream(gpu)):
                torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
                train(training, Quiet())
                torch.cuda.current_stream().synchronize()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=lane, args=(training,)) for training in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for training in lanes:
        assert training.step.captures == 1
        assert_equal_states(alone.state_dict(), training.state_dict())


def test_a_step_between_changes_does_not_wait_for_the_device(gpu):
    training = captured("static", gpu)
    training.replica.train()
    batches = list(training.task.batches(1, batch_size=16))
    for batch in batches[:3]:
        train_step(training, batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(training, batches[3])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_cpu_takes_eager_steps_on_a_machine_with_a_gpu(gpu):
    assert isinstance(training_of("rigl", torch.device("cpu")).step, EagerStep)

"""Captured steps, on a stand-in for CUDA graphs: the bits of eager ones, and what they rest on."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gapbench.methods.method import methods
from gapbench.tasks.docs_en_de import DocsEnDe
from gapbench.training.distributed import Ranks
from gapbench.training.loop import Interrupted, train, train_step
from gapbench.training.step import CapturedStep, EagerStep, Move, why_eager
from tests.recording import HostGraph, place_of
from tests.trainings import (
    EPOCHS,
    STEPS,
    Noise,
    Quiet,
    Stopping,
    assert_equal_states,
    training_of,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def both(method, task=None, **recipe):
    """Return a training with eager steps, and one with captured ones, both as on a GPU."""
    eager, captured = (training_of(method, CPU, task, fused=True, **recipe) for _ in range(2))
    assert isinstance(captured.step, EagerStep)
    captured.step = captured_step(captured)
    return eager, captured


def captured_step(training):
    graph = HostGraph(training.model.parameters())
    move = None if training.settings.recipe.clip_norm else Move(training.sparsifier)
    step = CapturedStep(training.step, training.model, graph, move)
    step.graph = graph
    return step


@pytest.mark.parametrize("method", list(methods))
def test_every_method_trains_to_the_same_bits_from_one_capture(method):
    eager, captured = both(method)
    train(eager, Quiet())
    train(captured, Quiet())
    assert_equal_states(eager.state_dict(), captured.state_dict())
    assert captured.step.captures == 1
    assert captured.step.graph.replays == EPOCHS * STEPS
    held = {place_of(t) for t in (*captured.model.parameters(), *captured.model.buffers())}
    inputs = {place_of(tensor) for tensor in captured.step._capture.inputs}
    assert captured.step.graph.tapes[0].places <= held | inputs  # of masks and rates it reads none
    fresh = sum(segment.phase.restart for segment in captured.sparsifier.plan.segments[1:])
    wholes = 0 if captured.sparsifier.plan.transform else 1 + fresh
    assert captured.step.whole_captures == wholes == len(captured.step.graph.tapes) - 1


@pytest.mark.parametrize(
    "recipe",
    [
        {"bf16": True},
        {"clip_norm": 0.1},
        {"channels_last": True},
        {"label_smoothing": 0.1},
        {"optimizer": "adamw", "lr": 0.003},
    ],
    ids=lambda recipe: next(iter(recipe)),
)
@pytest.mark.parametrize("method", ["rigl", "str"])
def test_every_kind_of_recipe_trains_to_the_same_bits(method, recipe):
    eager, captured = both(method, **recipe)
    for training in (eager, captured):
        train(training, Quiet(), until=6)
    assert_equal_states(eager.state_dict(), captured.state_dict())
    assert captured.step.captures == 1


@pytest.mark.parametrize("method", ["rigl", "c_gap", "p_gap"])
def test_a_run_that_resumes_in_a_capture_or_leaves_one_ends_with_the_same_bits(method):
    whole = training_of(method, CPU, fused=True)
    train(whole, Quiet())
    for before, after in ((True, False), (False, True), (True, True)):
        stopping = Stopping(37)
        with pytest.raises(Interrupted):
            train(both(method)[before], stopping)
        second = both(method)[after]
        second.load_state_dict(stopping.state)
        train(second, Quiet())
        assert_equal_states(whole.state_dict(), second.state_dict())


def test_a_state_that_is_loaded_into_a_captured_run_keeps_the_capture():
    whole = training_of("rigl", CPU, fused=True)
    train(whole, Quiet(), until=4)
    other = both("rigl")[1]
    train(other, Quiet(), until=6)
    begun = training_of("rigl", CPU, fused=True)
    train(begun, Quiet(), until=2)
    other.load_state_dict(copy.deepcopy(begun.state_dict()))
    train(other, Quiet(), until=4)
    assert_equal_states(whole.state_dict(), other.state_dict())
    assert other.step.captures == 1


def replaced_weight(training):
    param = training.model.conv1.weight
    param.data = param.data.clone()


def replaced_buffer(training):
    for module in training.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.data = module.running_mean.data.clone()


def moved(training):
    for param in training.model.parameters():
        param.data = param.data.clone()


@pytest.mark.parametrize("exchange", [replaced_weight, replaced_buffer, moved])
def test_memory_that_is_exchanged_is_captured_anew(exchange):
    eager, captured = both("static")
    for training in (eager, captured):
        train(training, Quiet(), until=2)
        exchange(training)
        train(training, Quiet(), until=4)
    assert captured.step.whole_captures == 2
    assert_equal_states(eager.state_dict(), captured.state_dict())


def test_a_batch_of_another_size_is_captured_anew():
    eager, captured = both("static")
    for training in (eager, captured):
        training.replica.train()
        for size in (16, 8, 16, 16):
            train_step(training, next(training.task.batches(1, batch_size=size)))
    assert (captured.step.captures, captured.step.whole_captures) == (1, 2)
    assert_equal_states(eager.state_dict(), captured.state_dict())


def test_a_capture_changes_no_state_and_no_generator():
    training = both("static")[1]
    training.replica.train()
    batch = next(training.task.batches(1, batch_size=16))
    before = copy.deepcopy(training.state_dict())
    generator = torch.get_rng_state()
    training.step._recorded(batch)
    assert_equal_states(before, training.state_dict())
    assert torch.equal(generator, torch.get_rng_state())
    assert all(param.grad is None for param in training.model.parameters())


class Loss(Noise):
    """Noise with another loss."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def loss(self, model, batch, recipe):
        return super().loss(model, batch, recipe) * self.extra(batch)


def drawing(batch):
    return nn.functional.dropout(batch[0], 0.5).mean() + 1


def reading(batch):
    return batch[0].mean().item() + 1


@pytest.mark.parametrize(
    ("extra", "reason"),
    [(drawing, "draws random numbers"), (reading, "waits for the device")],
    ids=["draws", "reads"],
)
def test_a_loss_that_cannot_be_captured_is_computed_eagerly_and_said_so(extra, reason):
    eager, captured = both("rigl", Loss(extra))
    train(eager, Quiet(), until=2)
    with pytest.warns(UserWarning, match=f"steps are not captured: .*{reason}"):
        train(captured, Quiet(), until=2)
    assert captured.step.captures == 0
    assert_equal_states(eager.state_dict(), captured.state_dict())


def test_the_stand_in_sees_what_a_graph_could_not():
    """Otherwise the tests above would say nothing."""
    numbers = iter([1.0, 1.0, 1.0, 2.0])
    training = both("static")[1]
    training.step._eager = EagerStep(
        Loss(lambda batch: next(numbers)), training.settings.recipe, training.replica, CPU
    )
    training.replica.train()
    with pytest.raises(AssertionError):
        training.step(next(training.task.batches(1, batch_size=16)))
    outside = [torch.ones(()) for _ in range(4)]
    kept = list(outside)
    training.step._eager = EagerStep(
        Loss(lambda batch: outside.pop()), training.settings.recipe, training.replica, CPU
    )
    with pytest.raises(AssertionError):
        training.step(next(training.task.batches(1, batch_size=8)))
    assert len(kept) == 4


@pytest.mark.parametrize(
    ("task", "device", "ranks", "reason"),
    [
        (Noise(), GPU, Ranks(), None),
        (Noise(), CPU, Ranks(), "cpu has no graphs"),
        (Noise(), GPU, Ranks(0, 2), "averaging gradients"),
        (SimpleNamespace(capturable=True, compile=True, name="x"), GPU, Ranks(), "compiler"),
        (DocsEnDe, GPU, Ranks(), "differ in shape"),
    ],
)
def test_what_is_captured_is_decided_in_one_place(task, device, ranks, reason):
    found = why_eager(task, device, ranks)
    assert found is None if reason is None else reason in found


def test_a_variable_keeps_all_steps_eager(monkeypatch):
    monkeypatch.setenv("GAPBENCH_EAGER", "1")
    assert why_eager(Noise(), GPU, Ranks()) == "GAPBENCH_EAGER is set"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_state_says_nothing_of_how_the_optimiser_computes(optimizer, fused):
    """A trial may go on where its rate lies elsewhere, as on a machine without a GPU."""
    first = training_of("static", CPU, fused=not fused, optimizer=optimizer)
    train(first, Quiet(), until=2)
    second = training_of("static", CPU, fused=fused, optimizer=optimizer)
    before = [(group["lr"], group["fused"]) for group in second.optimizer.param_groups]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for group, (rate, kind) in zip(second.optimizer.param_groups, before, strict=True):
        assert group["fused"] == kind and type(group["lr"]) is type(rate)
        assert not fused or group["lr"] is rate
        assert float(group["lr"]) == pytest.approx(first.rate)
    train(second, Quiet(), until=4)

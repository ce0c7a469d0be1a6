"""P-GaP rounds: who hands back what, and that it does not matter where branches run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gapbench.engine.rounds import BranchResult, followed_layer, merged
from gapbench.engine.sparsifier import Sparsifier
from tests.small import STEPS, optimizer_of, small_model, train_steps


def build(manual=False):
    model = small_model()
    sparsifier = Sparsifier(
        model,
        optimizer_of(model, "sgd"),
        "p_gap",
        sparsity=0.8,
        epochs=16,
        steps_per_epoch=STEPS,
        partitions=2,
        step_epochs=3,
        rounds=2,
        manual_phases=manual,
    )
    return model, sparsifier


def branch_elsewhere(start, branch):
    """Do what a worker does: build anew, load the round's start, train one branch."""
    model, sparsifier = build(manual=True)
    model.load_state_dict(start[0])
    sparsifier.load_state_dict(start[1])
    sparsifier.jump_to_branch(branch)
    train_steps(model, sparsifier, sparsifier.segment.phase.epochs * STEPS)
    return sparsifier.finish_branch()


def test_branches_run_elsewhere_give_the_same_bits():
    model_here, here = build()
    train_steps(model_here, here, here.plan.epochs * STEPS)

    model, sparsifier = build(manual=True)
    while sparsifier.segment.branch == 0:
        start = copy.deepcopy((model.state_dict(), sparsifier.state_dict()))
        results = [branch_elsewhere(start, branch) for branch in (1, 0)][::-1]
        sparsifier.finish_round(results)
    train_steps(model, sparsifier, sparsifier.segment.phase.epochs * STEPS)

    assert sparsifier.done
    for name, value in model_here.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert here.ledger.state_dict() == sparsifier.ledger.state_dict()
    assert sparsifier.coverage.fraction() == here.coverage.fraction() == 1.0


def test_nothing_stays_at_its_value_from_before_the_round():
    model, sparsifier = build()
    before = copy.deepcopy(model.state_dict())
    train_steps(model, sparsifier, 2 * 3 * STEPS)
    assert sparsifier.segment.part == 1
    for name, value in model.state_dict().items():
        assert not torch.equal(value, before[name]), name


def test_a_norm_follows_its_convolution_and_a_final_norm_follows_nothing():
    names = ["stem.weight", "bn.weight", "blocks.0.conv.weight", "blocks.0.norm.bias"]
    names += ["blocks.1.conv.weight", "blocks.1.conv.bias", "final_norm.weight"]
    layers = ["stem.weight", "blocks.0.conv.weight", "blocks.1.conv.weight"]
    assert followed_layer(["embed.weight", *names], layers) == {
        "embed.weight": None,
        "bn.weight": "stem.weight",
        "blocks.0.norm.bias": "blocks.0.conv.weight",
        "blocks.1.conv.bias": "blocks.1.conv.weight",
        "final_norm.weight": None,
    }


def test_tensors_that_follow_no_layer_are_averaged_and_counters_take_the_largest():
    empty = {"uses": {}, "steps": 0, "active_steps": 0, "peak_active": 0}
    results = [
        BranchResult({}, {}, {"e": torch.tensor([v]), "n": torch.tensor(c)}, empty)
        for v, c in ((1.0, 3), (2.0, 5))
    ]
    state = merged(results, {"e": None, "n": None})
    assert state["e"].item() == 1.5
    assert state["n"].item() == 5


def test_branches_are_only_taken_from_the_start_of_a_round():
    model, sparsifier = build()
    train_steps(model, sparsifier, 1)
    with pytest.raises(RuntimeError, match="not the start"):
        sparsifier.jump_to_branch(1)
    with pytest.raises(RuntimeError, match="not the start"):
        sparsifier.finish_round([])


def test_tied_weights_are_handed_back_once():
    from gapbench.engine.rounds import tensors

    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    assert list(tensors(model)) == ["a.weight"]

"""Every method under every pattern: the rule holds, plan = ledger, and resuming changes no bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from gapbench.engine.sparsifier import Sparsifier
from gapbench.errors import UserError
from gapbench.methods.method import methods, plan
from gapbench.plan.phases import Layer, Phase, Plan
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.sparsity.cost import forward_macs, plan_cost
from gapbench.sparsity.pattern import pattern_of, patterns
from gapbench.sparsity.score import scores

STEPS, EPOCHS = 5, 12
PATTERNS = {"2:4": 0.5, "1:4": 0.8, "constant_fan_in": 0.8, "constant_fan_in:0.6": 0.8,
            "block:2x2": 0.75}  # fmt: skip
KNOWN = {"n:m", "constant_fan_in", "block", "unstructured"}
PATTERNS |= {kind: 0.75 for kind in patterns if kind not in KNOWN}  # plug-ins
LAYERS = tuple(Layer(f"l{index}", (4, 4)) for index in range(4))
SPARSE = [
    name
    for name in methods
    if (built := plan(name, LAYERS, EPOCHS, **methods[name].small)).budget == "layers"
    if not built.dense_at_end
]
EXAMPLE = (torch.zeros(1, 4, 6, 6),)


def build(method, pattern, sparsity=None, **options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = Sparsifier(
        model,
        optimizer,
        method,
        sparsity=PATTERNS[pattern] if sparsity is None else sparsity,
        epochs=None if isinstance(method, Plan) else EPOCHS,
        steps_per_epoch=STEPS,
        pattern=pattern,
        **({} if isinstance(method, Plan) else {**methods[method].small, **options}),
    )
    return model, sparsifier


def train(model, sparsifier, steps):
    for _ in range(steps):
        generator = torch.Generator().manual_seed(sparsifier.steps)
        images = torch.randn(8, 4, 6, 6, generator=generator)
        sparsifier.optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), images.mean((2, 3)).argmax(1)).backward()
        sparsifier.step()
        yield


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", SPARSE)
def test_a_method_keeps_the_rule_and_costs_what_its_plan_says(method, pattern):
    model, sparsifier = build(method, pattern)
    total = sparsifier.plan.epochs * STEPS
    seen = set()
    for _ in train(model, sparsifier, total):
        seen.add(tuple(mask.flatten().nonzero().sum().item() for mask in sparsifier.masks.values()))
    sparsifier.verify()
    for name, mask in sparsifier.masks.items():
        assert pattern_of(pattern).holds(mask), name
        assert not sparsifier.weights.params[name][~mask].any()
    assert len(seen) > 1 or method in ("static", "fine_tune")  # masks have moved
    if not pattern_of(pattern).slack(sparsifier.layers[0]):  # ablation leaves a few weights fewer
        cost = forward_macs(model, EXAMPLE)
        planned = plan_cost(sparsifier.plan, sparsifier.targets.counts, cost, STEPS)
        measured = sparsifier.ledger.dense_steps(cost) / STEPS
        assert measured == pytest.approx(planned.dense_epochs, rel=1e-12)


@pytest.mark.parametrize("pattern", ["unstructured", *PATTERNS])
@pytest.mark.parametrize("drop", list(scores))
@pytest.mark.parametrize("grow", list(scores))
def test_every_score_drops_and_grows_within_every_pattern(pattern, drop, grow):
    update = DropGrow(grow, every=4, drop=drop, coefficient=0.1, replaces_step=False)
    plan_ = Plan((Phase(4, update=update, label="sparse"),), "random")
    model, sparsifier = build(plan_, pattern, PATTERNS.get(pattern, 0.8))
    first = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    for _ in train(model, sparsifier, 20):
        pass
    sparsifier.verify()
    moved = [name for name, mask in sparsifier.masks.items() if (mask != first[name]).any()]
    assert moved or grow.startswith("magnitude")  # by which what is dropped comes back at once
    assert all(pattern_of(pattern).holds(mask) for mask in sparsifier.masks.values())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", ["rigl", "c_gap", "granet"])
def test_resuming_under_a_pattern_changes_no_bit(method, pattern):
    model, sparsifier = build(method, pattern)
    total = sparsifier.plan.epochs * STEPS
    for step, _ in enumerate(train(model, sparsifier, total), start=1):
        if step == 33:
            states = copy.deepcopy(
                [model.state_dict(), sparsifier.optimizer.state_dict(), sparsifier.state_dict()]
            )
    other, again = build(method, pattern)
    other.load_state_dict(states[0])
    again.optimizer.load_state_dict(states[1])
    again.load_state_dict(states[2])
    for _ in train(other, again, total - 33):
        pass
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_state_of_another_pattern_is_refused():
    state = build("rigl", "2:4", 0.75)[1].state_dict()
    with pytest.raises(UserError, match="it belongs to another plan, sparsity or distribution"):
        build("rigl", "1:4", 0.75)[1].load_state_dict(state)


def test_verify_names_layers_that_break_the_rule():
    _, sparsifier = build("static", "2:4")
    mask = sparsifier.masks["3.weight"].clone()
    mask[0, :8] = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).bool()
    sparsifier.weights.mask_by({"3.weight": mask})
    with pytest.raises(UserError, match=r"3\.weight breaks the pattern 2:4"):
        sparsifier.verify()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"pattern": "2:4", "sparsity": 0.4}, "pattern: 2:4 does not fit: 0.weight would keep"),
        (
            {"pattern": "block:4x12", "sparsity": 0.95},
            "pattern: block:4x12 does not fit: 0.weight would keep 15 weights, and has at least 48",
        ),
        ({"pattern": "3:5", "sparsity": 0.9}, "pattern: 3:5 does not fit: 0.weight has 4 inputs"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(arguments, told):
    with pytest.raises(UserError) as error:
        build("rigl", **arguments)
    assert str(error.value).startswith(told)


def test_rows_that_are_ablated_stay_so_while_their_layer_is_pruned_on():
    model, sparsifier = build("granet", "constant_fan_in:0.6", 0.8, every=4, alpha=0.9)
    dead = {}
    for _ in train(model, sparsifier, EPOCHS * STEPS):
        for name, mask in sparsifier.masks.items():
            now = {row for row, alive in enumerate(mask.flatten(1).any(1).tolist()) if not alive}
            assert dead.get(name, set()) <= now
            dead[name] = now
    assert any(dead.values())
    sparsifier.verify()


def test_a_share_of_less_than_a_tile_moves_a_tile():
    model, sparsifier = build("rigl", "block:4x2", 0.75, every=4, alpha=0.05)
    first = sparsifier.masks["0.weight"].clone()  # of 72 weights one would move
    for _ in train(model, sparsifier, EPOCHS * STEPS):
        pass
    assert (sparsifier.masks["0.weight"] != first).any()


def test_a_dense_layer_needs_no_pattern():
    model, sparsifier = build("rigl", "1:4", distribution={"*": 0.25, "0.weight": 1.0})
    for _ in train(model, sparsifier, EPOCHS * STEPS):
        pass
    sparsifier.verify()
    assert sparsifier.densities() == {"0.weight": 1.0, "3.weight": 0.25, "5.weight": 0.25}


def test_methods_that_move_weights_between_layers_have_no_pattern():
    @dataclass(frozen=True)
    class Shift(DropGrow):
        budget: ClassVar[str] = "total"

    plan_ = Plan((Phase(4, update=Shift("random", every=4), label="s"),), "random")
    with pytest.raises(UserError, match="pattern: this method moves weights between layers"):
        build(plan_, "2:4")


def test_counts_that_weights_decide_have_no_pattern():
    with pytest.raises(UserError, match="pattern: 2:4 needs counts before training"):
        build("c_gap", "2:4", distribution="global_magnitude")

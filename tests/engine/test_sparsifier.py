"""Contract of every registered method: exact counts, plan = ledger, bitwise resume."""

from __future__ import annotations

import copy
import io
import itertools
import random

import pytest
import torch

from gapbench.engine.sparsifier import Sparsifier
from gapbench.errors import UserError
from gapbench.methods.method import methods, plan
from gapbench.plan.phases import Layer, Phase, Plan
from gapbench.plan.updates.gradual import Gradual
from gapbench.sparsity.cost import forward_macs, plan_cost
from gapbench.sparsity.counts import Counts
from gapbench.sparsity.distributions import densities
from gapbench.sparsity.masks import zeros_of
from tests.small import STEPS, loss_of_step, optimizer_of, small_model, train_steps

EPOCHS = 24
LAYERS = tuple(Layer(f"l{index}", (4, 4)) for index in range(4))
PLANS = {name: plan(name, LAYERS, EPOCHS, **methods[name].small) for name in methods}
DENSE = [name for name, built in PLANS.items() if built.dense_at_end]
LEARNED = [name for name, built in PLANS.items() if built.budget == "emergent"]
COUNTED = [name for name, built in PLANS.items() if built.budget == "layers"]
EXAMPLE = (torch.zeros(1, 1, 6, 6),)


def build(method, optimizer="sgd", distribution="uniform", sparsity=0.8, **options):
    model = small_model()
    sparsifier = Sparsifier(
        model,
        optimizer_of(model, optimizer),
        method,
        sparsity=None if method in LEARNED else 0.0 if method in DENSE else sparsity,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        distribution=distribution,
        **{**methods[method].small, **options} if isinstance(method, str) else {},
    )
    return model, sparsifier


def total_steps(sparsifier):
    return sparsifier.plan.epochs * STEPS


def zero_counts(sparsifier):
    return {n: int((p == 0).sum()) for n, p in sparsifier.weights.params.items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", list(methods))
def test_masked_weights_are_exactly_zero_after_every_step(method, optimizer):
    model, sparsifier = build(method, optimizer)
    for _ in range(total_steps(sparsifier)):
        train_steps(model, sparsifier, 1)
        for name, mask in sparsifier.masks.items():
            weight = sparsifier.weights.params[name]
            assert torch.count_nonzero(weight[~mask]) == 0


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@pytest.mark.parametrize("method", COUNTED)
def test_every_layer_ends_with_exactly_its_zeros(method, distribution):
    model, sparsifier = build(method, distribution=distribution)
    train_steps(model, sparsifier, total_steps(sparsifier))
    shapes = {layer.name: layer.shape for layer in sparsifier.layers}
    sparsity = 0.0 if method in DENSE else 0.8
    for name, density in densities(distribution, shapes, sparsity).items():
        weight = sparsifier.weights.params[name]
        mask = sparsifier.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert int((~mask).sum()) == zeros_of(weight.numel(), density)
    assert sparsifier.done
    sparsifier.verify()


@pytest.mark.parametrize("method", sorted({*methods} - {*DENSE, "static", "fine_tune"}))
def test_masks_move_with_the_small_options(method):
    model, sparsifier = build(method)
    first = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    train_steps(model, sparsifier, total_steps(sparsifier))
    last = sparsifier.masks
    assert last and any(name not in first or (last[name] != first[name]).any() for name in last)
    sparsifier.verify()


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@pytest.mark.parametrize("method", COUNTED)
def test_planned_cost_is_the_cost_measured(method, distribution):
    model, sparsifier = build(method, distribution=distribution)
    cost = forward_macs(model, EXAMPLE)
    shapes = {layer.name: layer.shape for layer in sparsifier.layers}
    wanted = densities(distribution, shapes, 0.0 if method in DENSE else 0.8)
    planned = plan_cost(sparsifier.plan, Counts(sparsifier.layers, wanted), cost, STEPS)
    train_steps(model, sparsifier, total_steps(sparsifier))
    ledger = sparsifier.ledger
    assert ledger.steps == total_steps(sparsifier)
    assert ledger.dense_steps(cost) / STEPS == pytest.approx(planned.dense_epochs, rel=1e-12)
    assert ledger.peak_density == pytest.approx(planned.peak_density, rel=1e-12)
    assert ledger.mean_density == pytest.approx(planned.mean_density, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", list(methods))
def test_resuming_anywhere_changes_no_bit(method, optimizer):
    straight_model, straight = build(method, optimizer)
    length = total_steps(straight)
    boundaries = [segment.start * STEPS for segment in straight.plan.segments][1:4]
    stops = sorted({*random.Random(method).sample(range(1, length), 4), *boundaries})
    train_steps(straight_model, straight, length)

    model, sparsifier = build(method, optimizer)
    for start, stop in itertools.pairwise([0, *stops, length]):
        train_steps(model, sparsifier, stop - start)
        file = io.BytesIO()
        states = [model.state_dict(), sparsifier.optimizer.state_dict(), sparsifier.state_dict()]
        torch.save(states, file)
        file.seek(0)
        weights, moments, state = torch.load(file, weights_only=True)
        model, sparsifier = build(method, optimizer)
        model.load_state_dict(weights)
        sparsifier.optimizer.load_state_dict(moments)
        sparsifier.load_state_dict(state)

    for name, value in straight_model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert all(torch.equal(mask, sparsifier.masks[n]) for n, mask in straight.masks.items())
    assert sparsifier.ledger.state_dict() == straight.ledger.state_dict()
    assert sparsifier.coverage.fraction() == straight.coverage.fraction()


def test_dsd_prunes_the_whole_model_at_the_end_of_every_step():
    model, sparsifier = build("dsd")
    pruned = []
    for _ in range(total_steps(sparsifier)):
        train_steps(model, sparsifier, 1)
        pruned += [c.step for c in sparsifier.changes() if c.event == "prune"]
    grow_steps = [s for s in sparsifier.plan.segments if s.phase.grow]
    assert len(grow_steps) > 1
    assert pruned == [segment.stop * STEPS for segment in grow_steps]


def test_c_gap_has_one_dense_partition_at_a_time_and_covers_everything_in_one_round():
    model, sparsifier = build("c_gap")
    coverage = []
    for segment in sparsifier.plan.segments:
        assert set(sparsifier.weights.params) - set(sparsifier.masks) == segment.phase.grow
        coverage.append(sparsifier.coverage.fraction())
        train_steps(model, sparsifier, segment.phase.epochs * STEPS)
    assert coverage[0] < 1.0
    assert coverage[1] == 1.0


def test_grown_positions_start_at_zero_and_kept_weights_keep_their_values():
    model, sparsifier = build("c_gap")
    first = sparsifier.plan.segments[0]
    train_steps(model, sparsifier, first.phase.epochs * STEPS - 1)
    second = sparsifier.plan.segments[1].phase.grow
    masks = {name: sparsifier.masks[name].clone() for name in second}
    train_steps(model, sparsifier, 1)
    for name in second:
        assert name not in sparsifier.masks
        weight = sparsifier.weights.params[name]
        assert torch.count_nonzero(weight[~masks[name]]) == 0
        assert torch.count_nonzero(weight[masks[name]]) > 0


def test_restart_clears_the_optimiser_and_no_restart_keeps_momentum_inside_the_mask():
    for restart in (True, False):
        model, sparsifier = build("c_gap", restart=restart)
        boundary = sparsifier.plan.segments[0].stop * STEPS
        train_steps(model, sparsifier, boundary)
        state = sparsifier.optimizer.state
        assert bool(state) is not restart
        for name, mask in sparsifier.masks.items() if state else ():
            momentum = state[sparsifier.weights.params[name]]["momentum_buffer"]
            if name in sparsifier.plan.segments[0].phase.grow:
                assert torch.count_nonzero(momentum[~mask]) == 0


def test_rigl_grows_where_the_gradient_is_largest_and_takes_no_step_then():
    model, sparsifier = build("rigl", every=3)
    train_steps(model, sparsifier, 3)
    before = copy.deepcopy(
        {n: (p.detach(), sparsifier.masks[n]) for n, p in sparsifier.weights.params.items()}
    )
    loss_of_step(model, sparsifier.steps).backward()
    sparsifier.step()
    for name, (weight, mask) in before.items():
        now = sparsifier.masks[name]
        kept = mask & now
        assert torch.equal(sparsifier.weights.params[name][kept], weight[kept])
        gradient = sparsifier.weights.params[name].grad.abs()
        grown, left = now & ~mask, ~now & ~mask
        if grown.any() and left.any():
            assert gradient[grown].min() >= gradient[left].max()
        assert int(now.sum()) == int(mask.sum())


def test_gradual_reaches_the_target_at_t1_and_not_before():
    model, sparsifier = build("gradual")
    update = sparsifier.segment.phase.update
    assert isinstance(update, Gradual)
    t1 = int(update.stop * total_steps(sparsifier))
    train_steps(model, sparsifier, t1)
    with pytest.raises(UserError, match=r"sparsity missed.*the plan has not ended"):
        sparsifier.verify()
    train_steps(model, sparsifier, 1)
    sparsifier.verify()


def test_global_magnitude_has_one_threshold_over_all_layers():
    model, sparsifier = build("dsd", distribution="global_magnitude")
    boundary = sparsifier.plan.segments[-1].start * STEPS
    train_steps(model, sparsifier, boundary)
    kept = torch.cat([p[sparsifier.masks[n]].abs() for n, p in sparsifier.weights.params.items()])
    numel = sum(layer.numel for layer in sparsifier.layers)
    assert len(kept) == numel - zeros_of(numel, 0.2)
    assert len({round(d, 6) for d in sparsifier.densities().values()}) > 1


@pytest.mark.parametrize("seed", range(4))
def test_global_magnitude_holds_where_prunes_share_layers(seed):
    """Random growth prunes a layer now with these, now with those others."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(8)))
    sparsifier = Sparsifier(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        "c_gap",
        sparsity=0.8,
        distribution="global_magnitude",
        epochs=8,
        steps_per_epoch=1,
        seed=seed,
        strategy="random",
        partitions=3,
        steps=6,
        step_epochs=1,
    )
    together = {segment.phase.grow for segment in sparsifier.plan.segments if segment.phase.grow}
    assert sum(map(len, together)) > 8  # some layers are in several
    while not sparsifier.done:
        model(torch.randn(4, 16)).square().sum().backward()
        sparsifier.step()
    sparsifier.verify()
    numel = sum(layer.numel for layer in sparsifier.layers)
    assert sum(zero_counts(sparsifier).values()) == zeros_of(numel, 0.2)


def test_a_layer_that_misses_its_target_is_named():
    model, sparsifier = build("static")
    train_steps(model, sparsifier, total_steps(sparsifier))
    with torch.no_grad():
        model[3].weight.fill_(1.0)
    with pytest.raises(UserError, match=r"3\.weight has 0 zeros, not 230"):
        sparsifier.verify()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "c_gapp"}, "did you mean 'c_gap'"),
        ({"sparsity": 1.2}, "sparsity: 1.2"),
        ({"partitions": 9}, "9"),
        ({"partions": 2}, "did you mean 'partitions'"),
        ({"epochs": -1}, "epochs: -1"),
        ({"epochs": 10.5}, "epochs: 10.5"),
        ({"steps_per_epoch": 0}, "steps_per_epoch: 0"),
        ({"steps_per_epoch": -1}, "steps_per_epoch: -1"),
        ({"sparsity": "x"}, "sparsity: 'x'"),
        ({"sparsity": float("nan")}, "sparsity: nan"),
        ({"layers": ["0.weight", "0.weight"]}, "0.weight is given twice"),
        ({"layers": ["3.bias"]}, "3.bias is a vector"),
        ({"layers": ["9.weight"]}, "unknown layer '9.weight'"),
        ({"optimizer": optimizer_of(small_model(), "sgd")}, "optimizer: it does not have 0.weight"),
        ({"method": Plan((Phase(1, frozenset("x")),)), "epochs": None}, "the plan grows x"),
        ({"method": Plan((Phase(1),)), "partitions": 2}, "partitions: a plan has no options"),
        ({"distribution": "unifrom"}, "did you mean 'uniform'"),
        ({"method": "rigl", "distribution": "global_magnitude"}, "prunes by magnitude"),
        (
            {"sparsity": 0.98, "distribution": "global_magnitude"},
            "0.98 is out of reach under global_magnitude: 0.weight, pruned together, would keep 1 ",
        ),
    ],
)
def test_bad_arguments_give_one_line_that_names_them(options, message):
    model = small_model()
    arguments = {"method": "c_gap", "sparsity": 0.9, "epochs": 30, "steps_per_epoch": 5, **options}
    arguments = {"optimizer": optimizer_of(model, "sgd"), **arguments}
    with pytest.raises(UserError, match=message) as caught:
        Sparsifier(model, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "other", [{"sparsity": 0.7}, {"step_epochs": 2}, {"distribution": "erk"}, {"restart": False}]
)
def test_the_state_of_another_plan_or_sparsity_is_refused(other):
    _, sparsifier = build("c_gap")
    sparsifier.load_state_dict(build("c_gap")[1].state_dict())
    with pytest.raises(UserError, match="another plan, sparsity or distribution"):
        sparsifier.load_state_dict(build("c_gap", **other)[1].state_dict())


def test_manual_phases_wait_for_the_caller():
    model = small_model()
    plan = Plan((Phase(1, grow=frozenset({"0.weight"}), label="a"), Phase(1, label="b")), "random")
    sparsifier = Sparsifier(
        model, optimizer_of(model, "sgd"), plan, sparsity=0.8, steps_per_epoch=2, manual_phases=True
    )
    with pytest.raises(RuntimeError, match="not ended"):
        sparsifier.next_phase()
    train_steps(model, sparsifier, 2)
    assert sparsifier.phase_ended
    assert "0.weight" not in sparsifier.masks
    with pytest.raises(RuntimeError, match="has ended"):
        train_steps(model, sparsifier, 1)
    sparsifier.next_phase()
    assert "0.weight" in sparsifier.masks

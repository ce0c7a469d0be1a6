from __future__ import annotations

import pytest

from gapbench.methods.method import plan
from gapbench.plan.phases import Layer, Plan
from gapbench.sparsity.cost import (
    ForwardCost,
    inference_ratio,
    plan_cost,
    published_ratio,
    rigl_factor,
)
from gapbench.sparsity.counts import Counts
from gapbench.sparsity.distributions import erk, uniform

# One sparse layer with all the cost but 100 MACs that nothing can prune.
LAYERS = (Layer("a", (10, 10)), Layer("b", (10, 30)))
COST = ForwardCost({"a": 1000, "b": 300, "embed": 60}, other=40, outputs=20)
DENSITY = {"a": 0.5, "b": 0.1}
NUMEL = 400


def erk_of(resnet50, sparsity):
    return erk(resnet50.shapes, sparsity)


def uniform_of(resnet50, sparsity):
    """Uniform with the first convolution dense and outside of the budget."""
    return uniform({layer.name: layer.shape for layer in resnet50.behind_conv1}, sparsity)


@pytest.mark.parametrize(("sparsity", "ratio", "rigl"), [(0.8, 0.4138, 0.42), (0.9, 0.2418, 0.24)])
def test_reference_erk_inference(resnet50, sparsity, ratio, rigl):
    found = inference_ratio(resnet50.cost, erk_of(resnet50, sparsity))
    assert round(found, 4) == ratio
    assert found == pytest.approx(rigl, abs=0.01)


@pytest.mark.parametrize(("sparsity", "ratio", "rigl"), [(0.8, 0.2241, 0.23), (0.9, 0.1272, 0.13)])
def test_reference_uniform_inference_counting_outputs_too(resnet50, sparsity, ratio, rigl):
    density = uniform_of(resnet50, sparsity)
    assert round(published_ratio(resnet50.cost, density), 4) == ratio
    assert inference_ratio(resnet50.cost, density) == pytest.approx(ratio, abs=0.002)
    assert inference_ratio(resnet50.cost, density) == pytest.approx(rigl, abs=0.01)


def test_reference_uniform_inference_with_conv1_sparse_is_what_rigls_paper_prints(resnet50):
    density = uniform(resnet50.shapes, 0.9)
    assert inference_ratio(resnet50.cost, density) == pytest.approx(0.10)


@pytest.mark.parametrize(
    ("sparsity", "once", "five_times"), [(0.8, 0.4165, 2.083), (0.9, 0.2454, 1.227)]
)
def test_reference_rigl_erk_training_1x_and_5x(resnet50, sparsity, once, five_times):
    factor = rigl_factor(published_ratio(resnet50.cost, erk_of(resnet50, sparsity)))
    assert round(factor, 4) == once
    assert round(5 * factor, 3) == five_times


@pytest.mark.parametrize(
    ("sparsity", "multiplier", "published"),
    [(0.8, 1, 0.42), (0.9, 1, 0.25), (0.8, 5, 2.09), (0.9, 5, 1.23)],
)
def test_reference_rigl_training_planned_step_by_step(resnet50, sparsity, multiplier, published):
    rigl = plan("rigl", resnet50.layers, 100 * multiplier)
    cost = plan_cost(rigl, Counts(resnet50.layers, erk_of(resnet50, sparsity)), resnet50.cost, 320)
    assert cost.dense_epochs / 100 == pytest.approx(published, abs=0.01 * multiplier)


@pytest.mark.parametrize(("sparsity", "ratio", "rigl"), [(0.8, 0.56, 0.56), (0.9, 0.50, 0.51)])
def test_reference_gradual_training(resnet50, sparsity, ratio, rigl):
    gradual = plan("gradual", resnet50.behind_conv1, 32, start=10 / 32, stop=25 / 32)
    density = uniform_of(resnet50, sparsity)
    cost = plan_cost(gradual, Counts(resnet50.behind_conv1, density), resnet50.cost, 1000)
    assert round(cost.dense_epochs / 32, 2) == ratio
    assert cost.dense_epochs / 32 == pytest.approx(rigl, abs=0.01)


@pytest.mark.parametrize(("sparsity", "density"), [(0.8, 0.40), (0.9, 0.325)])
@pytest.mark.parametrize("rule", ["contiguous", "interleaved", "random"])
def test_reference_c_gap_mean_density_during_a_round(resnet50, sparsity, density, rule):
    c_gap = plan("c_gap", resnet50.layers, 990, partitions=4, partition_rule=rule)
    a_round = Plan(c_gap.parts[:4], "random")
    wanted = uniform(resnet50.shapes, sparsity)
    cost = plan_cost(a_round, Counts(resnet50.layers, wanted), resnet50.cost, 10)
    assert cost.mean_density == pytest.approx(density, abs=1e-5)


def test_layers_that_are_not_named_are_dense():
    assert inference_ratio(COST, {}) == 1
    assert inference_ratio(COST, DENSITY) == pytest.approx((500 + 30 + 100) / 1400)
    assert inference_ratio(COST, {"a": 0.5}) == pytest.approx(900 / 1400)
    assert published_ratio(COST, DENSITY) == pytest.approx((2 * 630 + 20) / (2 * 1400 + 20))


def test_a_dense_plan_costs_its_epochs():
    cost = plan_cost(
        plan("dense", LAYERS, 7), Counts(LAYERS, dict.fromkeys(DENSITY, 1.0)), COST, 10
    )
    assert (cost.dense_epochs, cost.peak_density, cost.mean_density) == (7, 1, 1)


@pytest.mark.parametrize("method", ["static", "set"])
def test_a_plan_of_constant_density_costs_its_inference_ratio(method):
    cost = plan_cost(plan(method, LAYERS, 8), Counts(LAYERS, DENSITY), COST, 100)
    assert cost.dense_epochs == pytest.approx(8 * inference_ratio(COST, DENSITY))
    assert cost.peak_density == cost.mean_density == (50 + 30) / NUMEL


def test_each_rigl_update_replaces_a_step_and_pays_for_the_dense_gradient():
    cost = plan_cost(plan("rigl", LAYERS, 4, every=100), Counts(LAYERS, DENSITY), COST, 100)
    sparse, updates = inference_ratio(COST, DENSITY), 2  # steps 100 and 200, before 300 = T_end
    steps = (400 - updates) * sparse + updates * (2 * sparse + 1) / 3
    assert cost.dense_epochs == pytest.approx(steps / 100)


def test_gap_pays_for_the_partition_that_is_dense():
    c_gap = plan("c_gap", LAYERS, 10, partitions=2, steps=2, step_epochs=3)
    cost = plan_cost(c_gap, Counts(LAYERS, DENSITY), COST, 5)
    grown_a, grown_b = (1000 + 30 + 100) / 1400, (500 + 300 + 100) / 1400
    expected = 3 * grown_a + 3 * grown_b + 4 * inference_ratio(COST, DENSITY)
    assert cost.dense_epochs == pytest.approx(expected)
    assert cost.peak_density == (50 + 300) / NUMEL
    assert cost.mean_density == pytest.approx((3 * 130 + 3 * 350 + 4 * 80) / 10 / NUMEL)


def test_the_branches_of_a_parallel_round_are_all_paid_for():
    p_gap = plan("p_gap", LAYERS, 10, partitions=2, rounds=1, step_epochs=3)
    c_gap = plan("c_gap", LAYERS, 10, partitions=2, steps=2, step_epochs=3)
    assert p_gap.wall_epochs == 7
    assert plan_cost(p_gap, Counts(LAYERS, DENSITY), COST, 5) == plan_cost(
        c_gap, Counts(LAYERS, DENSITY), COST, 5
    )


def test_gradual_pruning_is_dense_up_to_its_start_and_meets_its_target_at_its_end():
    gradual = plan("gradual", LAYERS, 10, start=0.2, stop=0.4, every=100)
    cost = plan_cost(gradual, Counts(LAYERS, {"a": 0.5, "b": 1.0}), COST, 10)
    # Steps 0 to 20 are dense (a prune follows the step it is due at); that at 20 removes nothing,
    # that at 40 removes all at once.
    assert cost.dense_epochs == pytest.approx((41 + 59 * 900 / 1400) / 10)
    assert cost.peak_density == 1


def test_counts_are_the_floors_that_masks_have():
    layers = (Layer("a", (7,)),)
    cost = plan_cost(
        plan("static", layers, 1), Counts(layers, {"a": 0.5}), ForwardCost({"a": 7}, 0, 0), 1
    )
    assert cost.mean_density == 4 / 7

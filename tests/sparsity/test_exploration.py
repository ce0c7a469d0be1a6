from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.methods.method import plan
from gapbench.plan.phases import Layer
from gapbench.sparsity.exploration import Coverage, iou, mask_error, planned_coverage

LAYERS = tuple(Layer(f"l{index}", (10, 10)) for index in range(4))
TENTH = {layer.name: 0.1 for layer in LAYERS}


def bits(*values):
    return torch.tensor(values).bool()


def test_coverage_is_what_has_ever_been_active():
    coverage = Coverage({"a": (4,), "b": (2, 2)})
    assert coverage.fraction() == 0
    coverage.update({"a": bits(1, 0, 0, 0), "b": bits(0, 0, 0, 1).view(2, 2)})
    coverage.update({"a": bits(0, 1, 0, 0), "b": bits(0, 0, 0, 1).view(2, 2)})
    assert coverage.per_layer() == {"a": 0.5, "b": 0.25}
    assert coverage.fraction() == 3 / 8


def test_a_layer_without_a_mask_is_explored_at_once_and_for_good():
    coverage = Coverage({"a": (4,), "b": (4,)})
    coverage.update({"b": bits(1, 0, 0, 0)})
    coverage.update({"a": bits(0, 0, 0, 0), "b": bits(1, 0, 0, 0)})
    assert coverage.per_layer() == {"a": 1, "b": 0.25}


def test_coverage_does_not_share_memory_with_masks():
    coverage, mask = Coverage({"a": (4,)}), bits(1, 0, 0, 0)
    coverage.update({"a": mask})
    coverage.update({"a": bits(0, 1, 0, 0)})
    assert mask.tolist() == [True, False, False, False]


@given(seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_coverage_continues_from_its_state(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 5), "b": (2, 2, 3)}
    masks = [
        {n: torch.rand(s, generator=generator) < 0.3 for n, s in shapes.items()} for _ in range(4)
    ]
    whole, first, second = Coverage(shapes), Coverage(shapes), Coverage(shapes)
    for step in masks:
        whole.update(step)
    for step in masks[:2]:
        first.update(step)
    state = copy.deepcopy(first.state_dict())
    first.update({})
    second.load_state_dict(state)
    for step in masks[2:]:
        second.update(step)
    assert second.per_layer() == whole.per_layer()
    assert second.fraction() == whole.fraction()


def test_iou_is_common_over_all_active_and_one_for_empty_masks():
    one = {"a": bits(1, 1, 0, 0), "b": bits(1, 0), "c": bits(0, 0)}
    other = {"c": bits(0, 0), "b": bits(0, 1), "a": bits(0, 1, 1, 0), "d": bits(1)}
    assert iou(one, other) == {"a": 1 / 3, "b": 0, "c": 1}


def test_mask_error_is_the_share_of_the_squares_that_is_removed_over_all_layers():
    weights = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[0.0, 12.0]])}
    masks = {"a": bits(0, 1), "b": bits(0, 1).view(1, 2)}
    assert mask_error(weights, masks) == pytest.approx(9 / 169)
    assert mask_error(weights, {"a": bits(1, 1), "b": bits(1, 1).view(1, 2)}) == 0
    assert mask_error({"a": torch.zeros(2)}, {"a": bits(0, 1)}) == 0


def test_mask_error_is_summed_in_double_precision():
    weights = torch.linspace(0, 1, 100_001)
    mask = weights >= 0.1
    exact = weights.double().square()
    expected = float(exact[~mask].sum() / exact.sum())
    assert mask_error({"a": weights}, {"a": mask}) == pytest.approx(expected, rel=1e-12)


def test_cyclic_growth_covers_everything_in_one_round():
    c_gap = plan("c_gap", LAYERS, 20, partitions=4, steps=8, step_epochs=1)
    assert planned_coverage(c_gap, LAYERS, TENTH) == pytest.approx([0.325, 0.55, 0.775, *[1.0] * 6])


def test_branches_of_a_round_know_nothing_of_each_other_until_they_are_merged():
    p_gap = plan("p_gap", LAYERS, 20, partitions=4, rounds=2, step_epochs=1)
    assert planned_coverage(p_gap, LAYERS, TENTH) == pytest.approx([0.325] * 4 + [1.0] * 5)


def test_static_masks_explore_nothing_and_dense_training_everything():
    assert planned_coverage(plan("static", LAYERS, 5), LAYERS, TENTH) == [0.1]
    assert planned_coverage(plan("prune_from_dense", LAYERS, 9), LAYERS, TENTH) == [1, 1]


@pytest.mark.parametrize("method", ["rigl", "set"])
def test_coverage_of_moving_masks_is_measured_not_planned(method):
    assert planned_coverage(plan(method, LAYERS, 5), LAYERS, TENTH) is None

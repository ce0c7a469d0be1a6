from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.sparsity.patterns.unstructured import Unstructured

drop_grow = Unstructured().drop_grow

OLD = torch.tensor([0, 1, 0, 1, 0, 1, 1, 0]).bool()
SCORES = torch.tensor([-9.0, 1, 4, -1, 5, 8, -2, 3])


@pytest.mark.parametrize(
    ("fraction", "new"),
    [
        (0.25, [1, 1, 0, 1, 0, 1, 0, 0]),
        (0.5, [1, 1, 0, 0, 1, 1, 0, 0]),
        (0.75, [1, 0, 1, 0, 1, 1, 0, 0]),
    ],
)
def test_reference_one_rigl_update(fraction, new):
    count = int(fraction * int(OLD.sum()))
    assert drop_grow(SCORES, OLD, SCORES.abs(), count).int().tolist() == new


@given(seed=st.integers(0, 10**6), active=st.integers(0, 30), data=st.data())
@settings(deadline=None)
def test_the_count_stays_and_what_is_kept_is_the_largest(seed, active, data):
    generator = torch.Generator().manual_seed(seed)
    count = data.draw(st.integers(0, active))
    mask = torch.zeros(30).bool()
    mask[torch.randperm(30, generator=generator)[:active]] = True
    weight = torch.randint(-3, 4, (30,), generator=generator) * mask.float()
    growth = torch.randint(0, 4, (30,), generator=generator).float()
    new = drop_grow(weight.abs(), mask, growth, count)
    assert new.sum() == active
    lost = mask & ~new
    assert lost.sum() <= count
    if lost.any():
        assert weight.abs()[lost].max() <= weight.abs()[mask].sort().values[count - 1]


def test_a_weight_dropped_now_may_come_back():
    weight = torch.tensor([5.0, 1.0, 0.0, 0.0])
    mask = torch.tensor([True, True, False, False])
    growth = torch.tensor([0.0, 9.0, 1.0, 2.0])
    assert torch.equal(drop_grow(weight.abs(), mask, growth, 1), mask)


def test_active_weights_that_are_zero_go_before_masked_positions_can():
    weight = torch.zeros(4)
    mask = torch.tensor([False, True, True, False])
    new = drop_grow(weight.abs(), mask, torch.tensor([0.0, 0.0, 0.0, 1.0]), 1)
    assert new.tolist() == [False, True, False, True]  # of equal weights the lower index is kept


def test_equal_growth_scores_are_taken_from_the_lower_index():
    mask = torch.tensor([False, False, True, False])
    new = drop_grow(torch.tensor([0.0, 0, 1, 0]).abs(), mask, torch.zeros(4), 1)
    assert new.tolist() == [True, False, False, False]


def test_more_than_is_active_moves_all_that_is_active():
    mask = torch.tensor([True, False, False, False])
    new = drop_grow(torch.ones(4).abs(), mask, torch.tensor([0.0, 1, 2, 3]), 3)
    assert new.tolist() == [False, False, False, True]

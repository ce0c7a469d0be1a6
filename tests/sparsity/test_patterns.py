"""Patterns: exact masks of small tensors, and what every pattern promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.errors import UserError
from gapbench.plan.phases import Layer
from gapbench.sparsity.pattern import pattern_of

TEXTS = ["unstructured", "2:4", "1:4", "3:8", "constant_fan_in", "constant_fan_in:0.5", "block:2x4"]
SHAPES = [(8, 16), (4, 8, 3, 3), (2, 8, 1)]


def mask_of(rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_n_of_m_takes_the_largest_of_each_group_along_the_inputs():
    scores = torch.tensor([[1.0, 4, 3, 2, 9, 8, 7, 6]])
    assert torch.equal(pattern_of("2:4").select(scores, 4), mask_of([[0, 1, 1, 0, 1, 1, 0, 0]]))
    # fewer than n of m: the largest of those places; more: what is largest of the rest
    assert torch.equal(pattern_of("2:4").select(scores, 3), mask_of([[0, 1, 0, 0, 1, 1, 0, 0]]))
    assert torch.equal(pattern_of("2:4").select(scores, 5), mask_of([[0, 1, 1, 0, 1, 1, 1, 0]]))


def test_n_of_m_of_a_convolution_groups_input_channels():
    scores = torch.arange(16.0).view(1, 4, 2, 2)  # channel c has 4c to 4c + 3
    mask = pattern_of("1:4").select(scores, 4)
    assert torch.equal(mask[0, 3], torch.ones(2, 2).bool()) and mask[0, :3].sum() == 0


def test_n_of_m_grows_where_a_group_has_room():
    mask = mask_of([[1, 1, 0, 0, 1, 1, 0, 0]])
    drop = torch.tensor([[5.0, 4, 0, 0, 1, 3, 0, 0]])
    growth = torch.tensor([[9.0, 9, 8, 7, 0, 0, 2, 1]])
    new = pattern_of("2:4").drop_grow(drop, mask, growth, 1)
    assert torch.equal(new, mask_of([[1, 1, 0, 0, 0, 1, 1, 0]]))  # 8 has no room in its group


def test_ties_of_a_group_go_to_the_lower_index():
    assert pattern_of("2:4").select(torch.zeros(1, 8), 4).int().tolist() == [[1, 1, 0, 0] * 2]


def test_constant_fan_in_drops_over_the_layer_and_grows_row_by_row():
    mask = mask_of([[1, 1, 0, 0], [1, 1, 0, 0]])
    drop = torch.tensor([[1.0, 2, 0, 0], [8, 9, 0, 0]])
    growth = torch.tensor([[0.0, 1, 3, 2], [9, 9, 9, 9]])
    new = pattern_of("constant_fan_in").drop_grow(drop, mask, growth, 1)
    assert torch.equal(new, mask_of([[0, 1, 1, 0], [1, 1, 0, 0]]))


def test_a_row_without_salience_is_ablated_and_the_others_get_its_weights():
    mask = mask_of([[1, 1, 0, 0], [1, 1, 0, 0]])
    drop = torch.tensor([[1.0, 2, 0, 0], [8, 9, 0, 0]])
    growth = torch.tensor([[0.0, 0, 0, 0], [0, 0, 7, 6]])
    new = pattern_of("constant_fan_in:1").drop_grow(drop, mask, growth, 2)
    assert torch.equal(new, mask_of([[0, 0, 0, 0], [1, 1, 1, 1]]))
    assert pattern_of("constant_fan_in:1").holds(new)
    # without a threshold it lives on
    assert pattern_of("constant_fan_in").drop_grow(drop, mask, growth, 2).sum(1).tolist() == [2, 2]


def test_ablation_leaves_rows_enough_for_the_budget():
    mask = torch.ones(3, 4).bool()
    mask[:, 3] = False  # 9 weights: two rows of 4 have room for 8 only
    new = pattern_of("constant_fan_in:1").drop_grow(
        torch.rand(3, 4), mask, torch.zeros(3, 4), 9, 9, 9
    )
    assert new.sum(1).tolist() == [3, 3, 3]


def test_blocks_live_and_die_whole():
    scores = torch.tensor([[1.0, 1, 5, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]])
    pattern = pattern_of("block:2x2")
    assert torch.equal(pattern.select(scores, 8).int(), torch.tensor(
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.int32))  # fmt: skip
    mask = pattern.select(scores, 4)
    assert mask[2:, 2:].all()
    grown = pattern.drop_grow(torch.ones(4, 4), mask, scores, 4)
    assert grown.sum() == 4 and grown[2:, 2:].all()


@pytest.mark.parametrize("text", TEXTS)
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_every_pattern_keeps_its_rule_and_its_counts(text, data):
    pattern = pattern_of(text)
    shape = data.draw(st.sampled_from(SHAPES))
    layer = Layer("l", shape)
    asked = data.draw(st.integers(1, layer.numel // 4))
    keep = pattern.fit(layer, asked)
    if pattern.misfit(layer, keep):
        return
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = torch.randint(-3, 4, shape, generator=generator).float()  # with ties
    for mask in (pattern.select(scores, keep), pattern.random(shape, keep, generator)):
        assert int(mask.sum()) == keep and pattern.holds(mask) and mask.shape == shape
        assert pattern.fit(layer, keep) == keep
        count = data.draw(st.integers(0, keep))
        growth = torch.rand(shape, generator=generator)
        drop = scores.abs() * mask
        new = pattern.drop_grow(drop, mask, growth, count, keep, keep)
        assert pattern.holds(new)
        assert 0 <= keep - int(new.sum()) <= pattern.slack(layer)
        still = pattern.drop_grow(drop, mask, torch.zeros(shape), 0)
        assert pattern.slack(layer) or torch.equal(still, mask)
    more = pattern.fit(layer, min(layer.numel, 2 * keep))
    if not pattern.misfit(layer, more) and not pattern.slack(layer):
        first = pattern.select(scores, keep)
        grown = pattern.select(torch.rand(shape, generator=generator), more - keep, first)
        assert (grown >= first).all() and int(grown.sum()) == more and pattern.holds(grown)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2:2", "pattern: 2:2: needs 1 <= n < m"),
        ("0:4", "pattern: 0:4: needs 1 <= n < m"),
        ("constant_fan_in:1.5", "pattern: constant_fan_in:1.5: needs a share of the fan-in in"),
        ("block:0x4", "pattern: block:0x4: needs at least one row and one column"),
        (
            "two:four",
            "pattern: 'two:four' is unknown; valid: block:4x1, constant_fan_in, constant_",
        ),
    ],
)
def test_what_is_no_pattern_is_told_in_one_line(text, told):
    with pytest.raises(UserError) as error:
        pattern_of(text)
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shape", "keep", "told"),
    [
        ("2:4", (8, 6), 8, "l has 6 inputs, not a multiple of 4"),
        ("2:4", (8, 8), 33, "l would keep 33 weights, at most 32"),
        ("block:4x1", (6, 8), 8, "l is 6 x 8, not a multiple of 4 x 1"),
    ],
)
def test_a_layer_that_cannot_have_it_is_told(text, shape, keep, told):
    assert pattern_of(text).misfit(Layer("l", shape), keep) == told


@pytest.mark.parametrize("text", TEXTS)
def test_a_pattern_is_what_its_text_says(text):
    assert pattern_of(text).text == text and pattern_of(pattern_of(text)).text == text


def test_nan_is_kept_to_be_seen():
    scores = torch.tensor([[math.nan, 1.0, 2.0, 3.0]])
    for text in ("2:4", "constant_fan_in", "block:1x1"):
        assert pattern_of(text).select(scores, 2)[0, 0]

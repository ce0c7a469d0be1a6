"""Layers end to end give the masks, counts and bits that they give one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.sparsity import joined
from gapbench.sparsity.joined import Joined, clear_outside, intersected, replaced, top_masks
from gapbench.sparsity.masks import counts, top_mask
from gapbench.sparsity.patterns.unstructured import Unstructured

SHAPES = [(1, 1), (3, 7), (5, 3, 3, 3), (33, 65), (2, 2)]
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def scores_of(dtype, seed=0):
    """Return scores with many ties, zeros of both signs, infinities and NaN."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in SHAPES:
        scores = torch.randn(shape, generator=generator).mul(4).round().to(dtype)
        scores[torch.rand(shape, generator=generator) < 0.3] = 0.0
        scores[torch.rand(shape, generator=generator) < 0.2] *= -1
        for odd in (float("nan"), float("inf"), -float("inf")):
            scores[torch.rand(shape, generator=generator) < 0.02] = odd
        found.append(scores)
    return found


def masks_of(seed, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) < share for shape in SHAPES]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_largest_scores_are_those_of_each_layer_alone(dtype, share):
    scores = scores_of(dtype)
    keep = [int(share * score.numel()) for score in scores]
    found = top_masks(scores, keep, [None] * len(scores))
    for score, count, mask in zip(scores, keep, found, strict=True):
        assert torch.equal(mask, top_mask(score, count))


@given(
    values=st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=12), min_size=2),
    data=st.data(),
)
@settings(deadline=None)
def test_of_equal_scores_the_lower_index_of_each_layer_wins(values, data):
    scores = [torch.tensor(own, dtype=torch.float32) for own in values]
    keep = [data.draw(st.integers(0, len(own))) for own in values]
    found = top_masks(scores, keep, [None] * len(scores))
    for score, count, mask in zip(scores, keep, found, strict=True):
        assert torch.equal(mask, top_mask(score, count))


def test_more_than_a_byte_of_layers_are_told_apart():
    scores = [torch.randn(3, generator=torch.Generator().manual_seed(i)) for i in range(300)]
    for score, mask in zip(scores, top_masks(scores, [2] * 300, [None] * 300), strict=True):
        assert torch.equal(mask, top_mask(score, 2))


def test_more_than_a_layer_has_is_refused():
    with pytest.raises(ValueError, match="cannot keep 2 of 1 weights"):
        top_masks([torch.ones(1), torch.ones(3)], [2, 1], [None, None])


@pytest.mark.parametrize("dtype", TYPES)
def test_masks_shrink_inside_of_what_they_were(dtype):
    scores = [score.abs().nan_to_num(nan=1.0) for score in scores_of(dtype)]
    inside = [None, *masks_of(1)[1:]]
    keep = [0 if mask is None else int(mask.sum()) // 2 for mask in inside]
    found = top_masks(scores, keep, inside)
    alone = Unstructured()
    for score, count, bound, mask in zip(scores, keep, inside, found, strict=True):
        assert torch.equal(mask, alone.largest([score], [count], [bound])[0])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_positions_move_as_in_each_layer_alone(dtype, share):
    drop, growth, masks = scores_of(dtype, 1), scores_of(dtype, 2), masks_of(3)
    active = [int(mask.sum()) for mask in masks]
    moved = [int(share * count) for count in active]
    kept = [have - count for have, count in zip(active, moved, strict=True)]
    found = replaced(drop, masks, growth, kept, moved)
    for index, mask in enumerate(found):
        expected = Unstructured().drop_grow(
            drop[index], masks[index], growth[index], moved[index], active[index]
        )
        assert torch.equal(mask, expected)


def test_intersections_and_their_counts_are_those_of_each_layer():
    one, other = masks_of(4), masks_of(5)
    both, found = intersected(one, other)
    for a, b, mask, count in zip(one, other, both, found.tolist(), strict=True):
        assert torch.equal(mask, a & b)
        assert count == int((a & b).sum())


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_outside_becomes_zero_and_what_is_inside_keeps_its_bits(dtype):
    masks = masks_of(6)
    tensors = [[*pair] for pair in zip(scores_of(dtype, 1), scores_of(dtype, 2), strict=True)]
    tensors[2] = [t.contiguous(memory_format=torch.channels_last) for t in tensors[2]]
    expected = [[tensor.masked_fill(~mask, 0) for tensor in own]
                for mask, own in zip(masks, tensors, strict=True)]  # fmt: skip
    clear_outside(masks, tensors)
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensors[0][0].element_size()]
    for own, plain in zip(tensors, expected, strict=True):
        for tensor, other in zip(own, plain, strict=True):
            assert torch.equal(tensor.view(whole), other.view(whole))


def test_layers_with_and_without_moments_are_cleared_alike():
    masks = masks_of(6)
    tensors = [[torch.ones(shape)] * (1 + index % 2) for index, shape in enumerate(SHAPES)]
    clear_outside(masks, tensors)
    for mask, own in zip(masks, tensors, strict=True):
        assert all(torch.equal(tensor, mask.float()) for tensor in own)


@pytest.fixture
def together(monkeypatch):
    """Take layers together on the CPU too."""
    for module in ("joined", "masks"):
        monkeypatch.setattr(f"gapbench.sparsity.{module}.worth_joining", bool)


def test_portions_have_one_type_and_a_limit(together, monkeypatch):
    monkeypatch.setattr(joined, "LIMIT", 10)
    layers = {
        "a": torch.zeros(4),
        "b": torch.zeros(6),
        "c": torch.zeros(3, dtype=torch.float64),
        "d": torch.zeros(40),
        "e": torch.zeros(1),
    }
    assert list(joined.portions(layers)) == [["a", "b"], ["d"], ["c"], ["e"]]


def test_counts_are_those_of_each_mask(together, monkeypatch):
    masks = {str(index): mask for index, mask in enumerate(masks_of(7))}
    expected = {name: int(mask.sum()) for name, mask in masks.items()}
    assert counts(masks) == expected
    monkeypatch.setattr(joined, "LIMIT", 30)
    assert counts(masks) == expected
    assert list(counts(masks)) == list(masks)


def test_one_layer_by_one_is_the_way_of_the_cpu():
    layers = {name: torch.zeros(2) for name in "ab"}
    assert list(joined.portions(layers)) == [["a"], ["b"]]
    assert Joined([torch.zeros(2)]).counts(torch.tensor([True, False])).tolist() == [1]

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.sparsity.masks import (
    counts,
    digest,
    pack,
    random_mask,
    top_counts,
    top_mask,
    unpack,
)
from gapbench.sparsity.selection import _top_of_device, _top_of_host

# few distinct values, so that most draws have ties
scores_with_ties = st.lists(st.integers(-3, 3), min_size=1, max_size=60)


def by_sorting(values, keep):
    """The rule itself: highest score first, of equal ones the lower index first."""
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    return [index in order[:keep] for index in range(len(values))]


@given(values=scores_with_ties, data=st.data())
@settings(deadline=None)
def test_top_mask_keeps_exactly_the_largest_and_of_equal_ones_the_lower_index(values, data):
    keep = data.draw(st.integers(0, len(values)))
    mask = top_mask(torch.tensor(values, dtype=torch.float32), keep)
    assert mask.tolist() == by_sorting(values, keep)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_top_mask_is_exact_for_many_ties_in_every_float_type(dtype):
    scores = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores[torch.arange(0, 5000, 2)] = 0
    for keep in (1, 499, 2500, 4999):
        expected = torch.zeros(5000, dtype=torch.bool)
        expected[scores.double().sort(descending=True, stable=True).indices[:keep]] = True
        assert torch.equal(top_mask(scores, keep), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("values", ["distinct", "tied", "mostly lowest", "mostly zero"])
def test_cpu_and_device_select_the_same_weights(values, dtype):
    scores = torch.randn(4001, generator=torch.Generator().manual_seed(1))
    if values == "tied":
        scores = (scores * 2).round()
        scores[::3] = -0.0
    elif values == "mostly lowest":
        scores[40:] = -float("inf")
    elif values == "mostly zero":  # as gradients behind dead units, with kept ones below them
        scores = scores.abs() * (torch.arange(4001) % 9 == 0)
        scores[1::9] = -float("inf")
    scores = scores.to(dtype)
    for keep in (1, 39, 41, 400, 2000, 4000):
        mask = _top_of_host(scores, keep)
        assert mask.sum() == keep
        assert torch.equal(mask, _top_of_device(scores, keep))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_counts_of_the_largest_are_those_of_one_mask_over_all(dtype):
    generator = torch.Generator().manual_seed(2)
    weights = {
        "signed": torch.randn(3, 40, generator=generator).to(dtype),
        "tied": torch.randn(90, generator=generator).mul(2).round().to(dtype),
        "diverged": torch.tensor([float("nan"), -float("inf"), -0.0, 1.0], dtype=torch.float32),
        "strided": torch.randn(2, 3, 2, 2, generator=generator)
        .to(dtype)
        .to(memory_format=torch.channels_last),
    }
    scores = torch.cat([weight.abs().double().reshape(-1) for weight in weights.values()])
    sizes = [weight.numel() for weight in weights.values()]
    for keep in range(len(scores) + 1):
        parts = torch.split(top_mask(scores, keep), sizes)
        expected = {n: int(part.sum()) for n, part in zip(weights, parts, strict=True)}
        assert top_counts(weights, keep) == expected
    with pytest.raises(ValueError, match="cannot keep"):
        top_counts(weights, len(scores) + 1)


def test_a_device_is_not_waited_for():
    assert top_mask(torch.empty(50, device="meta"), 7).shape == (50,)  # has no values to wait for


def test_counts_are_of_each_mask():
    masks = {"b": torch.tensor([[True, False]]), "a": torch.ones(5, dtype=torch.bool)}
    assert list(counts(masks).items()) == [("b", 1), ("a", 5)]
    assert counts({}) == {}


def test_top_mask_counts_indices_in_row_major_order_whatever_the_memory_format():
    scores = torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last)
    mask = top_mask(scores, 5)
    assert mask.shape == scores.shape
    assert mask.flatten().tolist() == [True] * 5 + [False] * 19


def test_a_diverged_score_is_kept_and_the_count_stays_exact():
    nan, inf = float("nan"), float("inf")
    assert top_mask(torch.tensor([1.0, nan, 3.0, inf, nan]), 2).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert top_mask(torch.full((9,), nan), 4).sum() == 4


@pytest.mark.parametrize("keep", [-1, 5])
def test_a_count_out_of_range_is_refused(keep):
    with pytest.raises(ValueError, match=f"cannot keep {keep} of 4"):
        top_mask(torch.ones(4), keep)
    with pytest.raises(ValueError, match=f"cannot keep {keep} of 4"):
        random_mask((2, 2), keep, torch.Generator())


@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
@settings(deadline=None)
def test_random_masks_have_the_exact_count_and_follow_from_the_seed(shape, data):
    numel = torch.Size(shape).numel()
    keep, seed = data.draw(st.integers(0, numel)), data.draw(st.integers(0, 2**31))
    first = random_mask(tuple(shape), keep, torch.Generator().manual_seed(seed))
    again = random_mask(tuple(shape), keep, torch.Generator().manual_seed(seed))
    assert first.shape == tuple(shape)
    assert first.sum() == keep
    assert torch.equal(first, again)


def test_random_masks_take_every_position_equally_often():
    generator = torch.Generator().manual_seed(0)
    total = sum(random_mask((20,), 5, generator).int() for _ in range(4000))
    assert (total - 1000).abs().max() < 150  # five standard deviations


@given(bits=st.lists(st.booleans(), max_size=40))
@settings(deadline=None)
def test_packing_takes_a_bit_an_entry_and_loses_nothing(bits):
    mask = torch.tensor(bits, dtype=torch.bool)
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.numel() == (len(bits) + 7) // 8
    assert torch.equal(unpack(packed, (len(bits),)), mask)


def test_packing_is_row_major_whatever_the_memory_format():
    mask = random_mask((4, 3, 5, 5), 100, torch.Generator().manual_seed(0))
    turned = mask.to(memory_format=torch.channels_last)
    assert torch.equal(pack(turned), pack(mask))
    assert torch.equal(unpack(pack(turned), tuple(mask.shape)), mask)


def test_the_digest_tells_names_shapes_and_entries_apart_but_not_orders():
    mask = torch.tensor([True, False, True, False])
    base = digest({"a": mask, "b": ~mask})
    assert digest({"b": ~mask, "a": mask.clone()}) == base
    assert digest({"a": ~mask, "b": mask}) != base
    assert digest({"a": mask, "c": ~mask}) != base
    assert digest({"a": mask.view(2, 2), "b": ~mask}) != base
    assert digest({}) != base

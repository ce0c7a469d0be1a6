from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.errors import UserError
from gapbench.sparsity.mask_codes import decode, encode
from gapbench.sparsity.masks import random_mask


def entropy_bytes(numel, kept):
    density = kept / numel
    return -numel * sum(p * math.log2(p) for p in (density, 1 - density)) / 8


@given(st.lists(st.booleans(), min_size=1, max_size=300))
@settings(deadline=None)
def test_every_mask_comes_back(entries):
    mask = torch.tensor(entries)
    code = encode(mask)
    assert torch.equal(decode(code, (len(entries),)), mask)
    assert code.numel() <= 14 + 2 + len(entries) / 8


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_of_one_value_takes_a_head_alone(value):
    mask = torch.full((64, 32, 3, 3), value)
    assert encode(mask).numel() == 14
    assert torch.equal(decode(encode(mask), tuple(mask.shape)), mask)


@pytest.mark.parametrize("kept", [0.005, 0.02, 0.1, 0.2, 0.5, 0.9])
def test_masks_and_values_take_hardly_more_than_their_entropy(kept):
    numel = 400_000
    mask = random_mask((1000, 400), int(kept * numel), torch.Generator().manual_seed(1))
    values = 4 * int(mask.sum())
    bound = entropy_bytes(numel, int(mask.sum()))
    size = encode(mask).numel()
    assert bound <= size < 1.04 * bound + 14
    assert size + values < 1.01 * (bound + values)


def test_a_mask_whose_entries_lie_in_runs_takes_no_more_than_one_at_random():
    mask = torch.zeros(1000, 400, dtype=torch.bool)
    mask[:100] = True
    assert encode(mask).numel() < entropy_bytes(400_000, 40_000)


def test_a_mask_is_read_row_by_row_whatever_its_memory_format():
    mask = random_mask((8, 4, 3, 3), 50, torch.Generator().manual_seed(0))
    assert torch.equal(encode(mask.to(memory_format=torch.channels_last)), encode(mask))


def test_every_damaged_byte_is_found():
    code = encode(random_mask((40, 20), 80, torch.Generator().manual_seed(0)))
    for place in range(code.numel()):
        damaged = code.clone()
        damaged[place] ^= 4
        with pytest.raises(UserError, match="of a mask of 800 entries are damaged"):
            decode(damaged, (40, 20))


@pytest.mark.parametrize("length", [0, 3, 13, 20])
def test_bytes_that_are_cut_off_are_refused(length):
    code = encode(random_mask((40, 20), 80, torch.Generator().manual_seed(0)))
    with pytest.raises(UserError, match="damaged"):
        decode(code[:length], (40, 20))


def test_the_bytes_of_a_mask_of_another_size_are_refused():
    code = encode(torch.ones(12, dtype=torch.bool))
    with pytest.raises(UserError, match="13 entries"):
        decode(code, (13,))

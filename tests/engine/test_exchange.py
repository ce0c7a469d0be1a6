"""What travels between the branches of a P-GaP round is small, and comes back bit for bit."""

from __future__ import annotations

import io
import math

import pytest
import torch

from gapbench.engine.exchange import decode, encode
from gapbench.engine.rounds import BranchResult
from gapbench.errors import UserError
from gapbench.sparsity.masks import pack, random_mask

SHAPES = {"conv": (256, 64, 3, 3), "linear": (512, 300)}
LEDGER = {"steps": 3}


def branch_result(sparsity):
    generator = torch.Generator().manual_seed(0)
    layers, masks = {}, {}
    for name, shape in SHAPES.items():
        kept = math.prod(shape) - int(sparsity * math.prod(shape))
        mask = random_mask(shape, kept, generator)
        layers[name] = torch.randn(shape, generator=generator).masked_fill(~mask, 0)
        masks[name] = pack(mask)
    return BranchResult(layers, masks, {"norm": torch.randn(64)}, LEDGER)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.98])
def test_a_result_comes_back_bit_for_bit(sparsity):
    result = branch_result(sparsity)
    file = io.BytesIO()
    torch.save(encode(result), file)
    file.seek(0)
    back = decode(torch.load(file, weights_only=True), SHAPES)
    assert back.ledger == result.ledger
    for one, other in (
        (back.layers, result.layers), (back.masks, result.masks), (back.others, result.others)
    ):  # fmt: skip
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95])
def test_a_result_takes_at_most_five_percent_more_than_its_entropy(sparsity):
    numel = sum(math.prod(shape) for shape in SHAPES.values())
    bits = -sum(p * math.log2(p) for p in (sparsity, 1 - sparsity))
    bound = numel * (bits / 8 + 4 * (1 - sparsity))
    state = encode(branch_result(sparsity))
    size = sum(t.nbytes for part in ("layers", "masks") for t in state[part].values())
    assert size < 1.05 * bound


def test_a_damaged_mask_is_refused():
    state = encode(branch_result(0.9))
    state["masks"]["linear"][20] += 1
    with pytest.raises(UserError, match="153600 entries are damaged"):
        decode(state, SHAPES)

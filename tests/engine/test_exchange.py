"""What travels between the branches of a P-GaP round is small, and comes back bit for bit."""

from __future__ import annotations

import io
import math

import pytest
import torch

from gapbench.engine.exchange import decode, encode, sizes
from gapbench.engine.rounds import BranchResult
from gapbench.errors import UserError
from gapbench.sparsity.masks import pack, random_mask

SHAPES = {"conv": (256, 64, 3, 3), "linear": (512, 300)}
DTYPES = {"conv": torch.float32, "linear": torch.bfloat16}
LEDGER = {"steps": 3}


def branch_result(sparsity):
    generator = torch.Generator().manual_seed(0)
    layers, masks = {}, {}
    for name, shape in SHAPES.items():
        kept = math.prod(shape) - int(sparsity * math.prod(shape))
        mask = random_mask(shape, kept, generator)
        values = torch.randn(shape, generator=generator).to(DTYPES[name])
        layers[name] = values.masked_fill(~mask, 0)
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
        assert all(one[name].dtype == other[name].dtype for name in one)


@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95])
def test_a_result_takes_at_most_five_percent_more_than_its_entropy(sparsity):
    bits = -sum(p * math.log2(p) for p in (sparsity, 1 - sparsity))
    numels = {name: math.prod(shape) for name, shape in SHAPES.items()}
    widths = {name: dtype.itemsize for name, dtype in DTYPES.items()}
    bound = sum(numels[n] * (bits / 8 + widths[n] * (1 - sparsity)) for n in SHAPES)
    state = encode(branch_result(sparsity))
    size = sum(t.nbytes for part in ("layers", "masks") for t in state[part].values())
    assert size < 1.05 * bound
    told = sizes(state, SHAPES)
    assert told["sent"] == size
    assert told["dense"] == sum(numels[name] * widths[name] for name in SHAPES)
    assert told["bound"] == pytest.approx(bound, rel=1e-4)  # whole weights are kept


def test_a_damaged_mask_is_refused():
    state = encode(branch_result(0.9))
    state["masks"]["linear"][20] += 1
    with pytest.raises(UserError, match="153600 entries are damaged"):
        decode(state, SHAPES)

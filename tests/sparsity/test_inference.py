"""Linear layers with CSR weights: the same outputs, and only where they are sparse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gapbench.errors import UserError
from gapbench.sparsity.inference import CsrLinear, to_csr, to_semi_structured


def network():
    torch.manual_seed(0)
    model = nn.ModuleDict({
        "sparse": nn.Linear(24, 16),
        "bare": nn.Linear(16, 8, bias=False),
        "dense": nn.Linear(8, 4),
        "inner": nn.Sequential(nn.Linear(4, 4)),
    })  # fmt: skip
    for layer in (model["sparse"], model["bare"], model["inner"][0]):
        layer.weight.data *= torch.rand(layer.weight.shape) < 0.1
    return model


def test_sparse_linear_layers_are_changed_and_give_the_same_outputs():
    model = network()
    before = copy.deepcopy(model)
    assert to_csr(model) == ["sparse", "bare", "inner.0"]
    assert isinstance(model["inner"][0], CsrLinear) and isinstance(model["dense"], nn.Linear)
    for shape in ((24,), (3, 24), (2, 5, 24), (0, 24)):
        inputs = torch.randn(shape)
        for name in ("sparse", "bare"):
            torch.testing.assert_close(model[name](inputs), before[name](inputs))
            inputs = before[name](inputs)


def test_what_needs_a_gpu_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="need a GPU of compute capability"):
        to_semi_structured(network())

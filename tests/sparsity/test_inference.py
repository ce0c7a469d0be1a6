"""Linear layers with CSR weights: the same outputs, and only where they are sparse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gapbench.errors import UserError
from gapbench.sparsity.inference import CsrLinear, load_csr, to_csr, to_semi_structured


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


def test_weights_follow_the_model_and_are_in_its_state():
    layer = CsrLinear(network()["sparse"].weight, network()["sparse"].bias).double()
    assert layer(torch.randn(3, 24).double()).dtype == torch.float64
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.to("meta").bias.device.type == "meta"


def trained():
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4))
    state = model.state_dict()
    return model, {**state, "0.weight": state["0.weight"].to_sparse_csr()}


@pytest.mark.parametrize("spoil", ["shape", "bias", "other", "dense shape"])
def test_a_state_that_does_not_fit_leaves_the_model_as_it_was(spoil):
    model, state = trained()
    match spoil:
        case "shape":
            state["0.weight"] = torch.zeros(8, 8).to_sparse_csr()
        case "bias":
            del state["0.bias"]
        case "other":
            state["3.weight"] = torch.zeros(2)
        case "dense shape":
            state["2.weight"] = torch.zeros(4, 17)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"0\.weight: no linear|is only in the model, only in the state"
    ):
        load_csr(model, state)
    assert isinstance(model[0], nn.Linear)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_state_is_loaded_in_the_models_own_type():
    model, state = trained()
    loaded = load_csr(model.double(), state)
    assert loaded(torch.randn(2, 24).double()).dtype == torch.float64

from __future__ import annotations

import pytest
import torch
from torch import nn

from gapbench.errors import UserError
from gapbench.plan.phases import Layer
from gapbench.sparsity.layers import layers_of, prunable


def test_reference_resnet50_prunable_weights(resnet50):
    assert len(resnet50.layers) == 54
    assert sum(layer.numel for layer in resnet50.layers) == 25_502_912


def test_convolutions_and_linear_layers_are_prunable_and_norms_and_biases_are_not():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.BatchNorm1d(4),
        nn.ConvTranspose2d(4, 2, 3),
        nn.LayerNorm(6),
        nn.Linear(6, 1),
    )
    assert prunable(model) == ("0.weight", "2.weight", "4.weight")


def test_attention_projections_are_prunable_packed_or_not():
    packed = nn.MultiheadAttention(8, 2)
    assert prunable(packed) == ("in_proj_weight", "out_proj.weight")
    separate = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert prunable(separate) == (
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "out_proj.weight",
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.second.weight = self.first.weight
        self.out.weight = self.embed.weight


def test_a_weight_tied_to_an_embedding_is_not_prunable_and_other_ties_are_named_once():
    assert prunable(Tied()) == ("first.weight",)


def test_layers_carry_names_and_shapes_also_on_the_meta_device():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 5))
    assert layers_of(model, prunable(model)) == (Layer("0.weight", (8, 3, 5, 5)),)


@pytest.mark.parametrize("name", ["0.weigth", "2.weight"])
def test_a_name_that_the_model_does_not_have_is_refused_with_those_it_has(name):
    with pytest.raises(UserError, match=f"unknown layer '{name}'.*0.weight") as caught:
        layers_of(nn.Sequential(nn.Linear(2, 2)), ["0.weight", name])
    assert "\n" not in str(caught.value)


def test_a_model_without_prunable_layers_is_refused():
    model = nn.Sequential(nn.Embedding(3, 3), nn.LayerNorm(3))
    with pytest.raises(UserError, match="no prunable layer"):
        layers_of(model, prunable(model))

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gapbench.sparsity.macs import forward_macs


def of(model, *inputs):
    """MACs of the parameters that have some, as a plain dict."""
    return {name: macs for name, macs in forward_macs(model, inputs).macs.items() if macs}


def test_reference_resnet50_multiply_accumulates(resnet50):
    assert resnet50.cost.total == 4_089_184_256
    assert resnet50.cost.other == 0
    assert {name for name, macs in resnet50.cost.macs.items() if macs} == set(resnet50.shapes)


def test_convolutions_count_positions_times_the_kernel_of_one_group():
    image = torch.zeros(1, 8, 10, 10)
    assert of(nn.Conv2d(8, 16, 3, padding=1), image) == {"weight": 16 * 8 * 9 * 100}
    assert of(nn.Conv2d(8, 16, 3, stride=2), image) == {"weight": 16 * 8 * 9 * 16}
    assert of(nn.Conv2d(8, 16, 3, padding=1, groups=4), image) == {"weight": 16 * 2 * 9 * 100}
    assert of(nn.Conv2d(8, 8, 3, padding=1, groups=8), image) == {"weight": 8 * 9 * 100}
    assert of(nn.Conv1d(4, 6, 5), torch.zeros(1, 4, 20)) == {"weight": 6 * 4 * 5 * 16}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 5), (1, 7, 5), (5,)])
def test_linear_counts_its_weight_once_a_position(bias, shape):
    positions = torch.Size(shape[:-1]).numel()
    cost = forward_macs(nn.Linear(5, 3, bias=bias), [torch.zeros(shape)])
    assert cost.macs.pop("weight") == 15 * positions
    assert set(cost.macs.values()) <= {0}
    assert cost.outputs == 3 * positions


class Experts(nn.Module):
    """Weights used by functions alone: a batched product, and the same weight cast and copied."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(6, 4))
        self.expert = nn.Parameter(torch.randn(3, 4, 2))
        self.start = nn.Parameter(torch.randn(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.bmm(x.expand(3, 5, 6), self.mix.expand(3, 6, 4))
        x = torch.baddbmm(self.start, x, self.expert)
        return torch.einsum("eti,ji->etj", x, self.mix[:4, :2].double().float().contiguous())


def test_expanded_batched_and_copied_weights_are_known_for_what_they_are():
    cost = forward_macs(Experts(), [torch.zeros(1, 5, 6)])
    assert cost.macs == {"mix": 15 * 6 * 4 + 15 * 2 * 4, "expert": 15 * 4 * 2, "start": 0}
    assert cost.other == 0


def test_an_activation_in_the_memory_of_a_copied_weight_is_not_taken_for_it():
    class Copies(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(20):
                x = torch.relu(x @ self.weight.clone())
                x = torch.relu(x @ x)
            return x

    cost = forward_macs(Copies(4, 4, bias=False), [torch.zeros(4, 4)])
    assert cost.macs == {"weight": 20 * 4**3}
    assert cost.other == 20 * 4**3


def test_a_learned_input_leaves_the_product_to_the_weight():
    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(2, 4))
            self.project = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.project(self.query) @ x.transpose(0, 1)

    cost = forward_macs(Query(), [torch.zeros(5, 3)])
    assert cost.macs == {"query": 0, "project.weight": 2 * 4 * 3, "project.bias": 0}
    assert cost.other == 2 * 3 * 5


@pytest.mark.parametrize("need_weights", [True, False])
def test_packed_attention_projections_and_the_products_of_activations(need_weights):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x, need_weights=need_weights)[0]

    cost = forward_macs(Attention(), [torch.zeros(1, 5, 8)])
    assert cost.macs["inner.in_proj_weight"] == 5 * 24 * 8
    assert cost.macs["inner.out_proj.weight"] == 5 * 8 * 8
    assert cost.other == 2 * 5 * 5 * 8  # queries with keys, and scores with values


class FunctionalAttention(nn.Module):
    """Calls no module: forward hooks on its projections would never fire (as in fairseq)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(8, 8), nn.Linear(6, 8)
        self.v_proj, self.out_proj = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        bias = torch.cat([p.bias for p in (self.q_proj, self.k_proj, self.v_proj)])
        return F.multi_head_attention_forward(
            x,
            memory,
            memory,
            embed_dim_to_check=8,
            num_heads=2,
            in_proj_weight=None,
            in_proj_bias=bias,
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.out_proj.weight,
            out_proj_bias=self.out_proj.bias,
            use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )[0]


def test_functional_attention_with_separate_projections():
    model = FunctionalAttention()
    assert of(model, torch.zeros(5, 1, 8), torch.zeros(7, 1, 6)) == {
        "q_proj.weight": 5 * 8 * 8,
        "k_proj.weight": 7 * 6 * 8,
        "v_proj.weight": 7 * 6 * 8,
        "out_proj.weight": 5 * 8 * 8,
    }


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(10, 4), nn.Embedding(5, 4)
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        x = x * torch.ones(tokens.shape[1], 1)
        if tokens.eq(0).any():  # unknown on the meta device
            x = x * 0
        return self.out(self.inner(self.inner(x)))


def test_tied_weights_are_counted_each_time_they_are_used_under_their_first_name():
    cost = forward_macs(Tied(), [torch.ones(1, 3, dtype=torch.long)])
    assert cost.macs == {
        "embed.weight": 3 * 4 * 10,
        "place.weight": 0,
        "inner.weight": 2 * 3 * 4 * 4,
        "inner.bias": 0,
    }


def encoder():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.zeros(1, 6, 16),)


def convolutional():
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    deep = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Flatten())
    return nn.Sequential(stem, deep, nn.Linear(4 * 49, 5)), (torch.zeros(1, 3, 20, 20),)


@pytest.mark.parametrize("build", [encoder, convolutional])
def test_totals_agree_with_torchs_own_counter(build):
    model, inputs = build()
    with FlopCounterMode(display=False) as counter:
        model.train()(*inputs)
    assert 2 * forward_macs(model, inputs).total == counter.get_total_flops()


def test_counting_changes_nothing_in_the_model_or_the_generators():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 2)
    ).train()
    model[2].eval()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model(torch.randn(2, 1, 4, 4)).sum().backward()
    calls.clear()
    tensors = {name: (value, value.clone()) for name, value in model.state_dict().items()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    settings = copy.deepcopy([vars(module)["training"] for module in model.modules()])
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    rng = torch.get_rng_state()

    forward_macs(model, [torch.zeros(1, 1, 4, 4)])

    assert calls == []
    for name, value in model.state_dict().items():
        kept, copied = tensors[name]
        assert value.data_ptr() == kept.data_ptr()
        assert torch.equal(value, copied)
    assert all(torch.equal(p.grad, gradients[n]) for n, p in model.named_parameters())
    assert [module.training for module in model.modules()] == settings
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    assert torch.equal(torch.get_rng_state(), rng)


def test_noise_that_a_model_draws_is_drawn_from_a_copy_of_the_generator():
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.rand(1, device="cpu").item())

    model, before = Noisy(2, 2), torch.get_rng_state()
    assert of(model, torch.zeros(1, 2)) == {"weight": 4}
    assert torch.equal(torch.get_rng_state(), before)


def test_counting_works_inside_inference_mode_and_on_a_meta_model():
    with torch.device("meta"):
        model = nn.Linear(4, 3)
    with torch.inference_mode():
        assert of(model, torch.zeros(1, 4)) == {"weight": 12}
        assert of(nn.Linear(4, 3), torch.zeros(1, 4)) == {"weight": 12}

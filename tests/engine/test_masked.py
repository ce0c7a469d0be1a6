"""Masked weights: clipping, and the fast ways give the bits of the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gapbench.engine.masked import MaskedWeights
from gapbench.engine.sparsifier import Sparsifier
from gapbench.sparsity.masks import _top_of_device
from gapbench.sparsity.patterns.unstructured import Unstructured
from tests.small import STEPS, loss_of_step, optimizer_of, small_model


@pytest.fixture
def trained():
    model = small_model()
    sparsifier = Sparsifier(
        model,
        optimizer_of(model, "sgd"),
        "rigl",
        sparsity=0.8,
        epochs=4,
        steps_per_epoch=STEPS,
        every=5,
    )
    loss_of_step(model, 0).backward()
    return model, sparsifier.weights


def norm_of_existing(model, weights):
    masks = {id(weights.params[name]): mask for name, mask in weights.masks.items()}
    parts = [p.grad[masks[id(p)]] if id(p) in masks else p.grad.flatten()
             for p in model.parameters()]  # fmt: skip
    return torch.cat([part.flatten() for part in parts]).norm().item()


def test_clipping_is_by_the_norm_of_the_weights_that_exist(trained):
    model, weights = trained
    norm = norm_of_existing(model, weights)
    before = {name: param.grad.clone() for name, param in model.named_parameters()}
    weights.clip_gradients(model.parameters(), norm / 2)
    assert norm_of_existing(model, weights) == pytest.approx(norm / 2, rel=1e-4)
    for name, param in model.named_parameters():  # dense: RigL grows by those at masked places
        assert torch.allclose(param.grad, before[name] / 2, rtol=1e-4)


def test_large_gradients_of_weights_that_do_not_exist_clip_nothing(trained):
    model, weights = trained
    for name, mask in weights.masks.items():
        weights.params[name].grad[~mask] = float("inf")
    before = {name: param.grad.clone() for name, param in model.named_parameters()}
    weights.clip_gradients(model.parameters(), 2 * norm_of_existing(model, weights))
    for name, param in model.named_parameters():
        assert torch.equal(param.grad, before[name])


def bits(tensor):
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().view(whole[tensor.element_size()])


SHAPES = [(1, 1), (3, 7), (33, 65), (5, 3, 3, 3), (17, 8, 1, 5)]


@pytest.fixture(params=[torch.float32, torch.float64, torch.bfloat16, torch.float16])
def odd(request):
    """Weights of odd shapes, some channels_last, with zeros of both signs, and random masks."""
    generator = torch.Generator().manual_seed(0)
    params, masks = {}, {}
    for number, shape in enumerate(SHAPES):
        weight = torch.randn(shape, generator=generator).to(request.param)
        weight[torch.rand(shape, generator=generator) < 0.2] = 0.0
        weight[torch.rand(shape, generator=generator) < 0.2] *= -1
        last = len(shape) == 4
        layout = torch.channels_last if last else torch.contiguous_format
        params[str(number)] = nn.Parameter(weight.to(memory_format=layout))
        masks[str(number)] = torch.rand(shape, generator=generator) < 0.3
    params["column"] = nn.Parameter(torch.randn(9, 6, generator=generator).to(request.param).t())
    masks["column"] = torch.rand(6, 9, generator=generator) < 0.5
    weights = MaskedWeights(params, torch.optim.SGD(params.values(), lr=0.1), Unstructured())
    return weights, masks


def test_holding_gives_the_bits_of_a_product_with_the_mask(odd):
    weights, masks = odd
    weights.set_masks(masks)
    plain = {name: param.detach() * masks[name] for name, param in weights.params.items()}
    assert any(bits(value).ne(0).logical_and(value == 0).any() for value in plain.values())
    weights.hold()
    for name, param in weights.params.items():
        assert torch.equal(bits(param), bits(plain[name])), name


def test_new_masks_leave_positive_zeros_outside_whatever_was_there_and_all_bits_inside(odd):
    weights, masks = odd
    with torch.no_grad():
        for param in weights.params.values():
            param[0], param[-1] = float("nan"), -float("inf")
    plain = {n: p.detach().masked_fill(~masks[n], 0) for n, p in weights.params.items()}
    weights.mask_by(masks)
    for name, param in weights.params.items():
        assert torch.equal(bits(param), bits(plain[name])), name
        assert weights.masks[name].stride() == param.stride()


def test_masks_take_one_byte_a_weight_and_nothing_is_kept_beside_them(odd):
    weights, masks = odd
    weights.set_masks(masks)
    weights.hold()
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in [*weights.masks.values(), *weights._keep]}  # fmt: skip
    assert sum(held.values()) == sum(param.numel() for param in weights.params.values())


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        names = ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__")
        self.count += getattr(func, "__name__", "") in names
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [2, 20])
def test_a_change_waits_for_the_device_a_few_times_however_many_layers_there_are(
    layers, monkeypatch
):
    # the way of devices, here on the CPU
    monkeypatch.setattr("gapbench.sparsity.masks._top_of_host", _top_of_device)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rigl = Sparsifier(model, optimizer, "rigl", sparsity=0.5, epochs=9, steps_per_epoch=9, every=2)
    model(torch.randn(3, 8)).sum().backward()
    rigl.step()
    rigl.step()
    with Waits() as update:
        rigl.step()
    assert [change.event for change in rigl.changes()] == ["initial", "update"]
    assert update.count <= 2  # how many are active, and how many stay
    with Waits() as between:
        rigl.step()
    assert between.count == 0
    with Waits() as prune:
        rigl.weights.mask_by(rigl.weights.largest(dict.fromkeys(rigl.weights.params, 10)))
    assert prune.count == 0

"""Masked weights: clipping, and the fast ways give the bits of the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gapbench.engine.masked import MaskedWeights
from gapbench.engine.sparsifier import Sparsifier
from gapbench.methods.method import methods
from gapbench.sparsity.patterns.unstructured import Unstructured
from gapbench.sparsity.selection import _top_of_device
from gapbench.training.loop import train
from tests.small import STEPS, loss_of_step, optimizer_of, small_model
from tests.trainings import Quiet, assert_equal_states, training_of


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


class Kernels(TorchDispatchMode):
    """Counts what is launched on a device, and values that torch itself reads from it."""

    def __init__(self):
        super().__init__()
        self.count = self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.reads += name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")
        views = any(returned.alias_info is not None for returned in func._schema.returns)
        self.count += not name.startswith("empty") and (not views or name.endswith("_"))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Go the way of devices on the CPU: layers together, and no selection by numpy."""
    monkeypatch.setattr("gapbench.sparsity.selection._top_of_host", _top_of_device)
    for module in ("joined", "masks", "exploration"):
        monkeypatch.setattr(f"gapbench.sparsity.{module}.worth_joining", bool)


def stack_of(layers, method, pattern="unstructured", **options):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsifier = Sparsifier(
        model, optimizer, method, sparsity=0.5, epochs=9, steps_per_epoch=9, pattern=pattern,
        manual_phases=True, **options,
    )  # fmt: skip
    model(torch.randn(3, 8)).sum().backward()
    sparsifier.step()
    sparsifier.step()
    return sparsifier


def counted(run):
    with Kernels() as kernels, Waits() as waits:
        run()
    return kernels, waits.count


EVERY_TWO = {
    "rigl": ("rigl", {"every": 2}),
    "set": ("set", {"every": 2}),
    "mest": ("mest", {"every": 2}),
    "rigl, constant fan-in": ("rigl", {"every": 2, "pattern": "constant_fan_in"}),
    "rigl, ablated rows": ("rigl", {"every": 2, "pattern": "constant_fan_in:0.3"}),
    "rigl, blocks": ("rigl", {"every": 2, "pattern": "block:2x2"}),
}


@pytest.mark.parametrize("layers", [2, 20])
@pytest.mark.parametrize("name", EVERY_TWO)
def test_an_update_waits_for_the_device_a_few_times_however_many_layers_there_are(
    name, layers, as_on_a_gpu
):
    method, options = EVERY_TWO[name]
    sparsifier = stack_of(layers, method, **options)
    update, waits = counted(sparsifier.step)
    assert "update" in [change.event for change in sparsifier.changes()]
    assert waits <= 4  # how many are active, and how many stay
    assert update.reads == 0
    between, waits = counted(sparsifier.step)
    assert (waits, between.reads) == (0, 0)


@pytest.mark.parametrize("layers", [2, 20])
@pytest.mark.parametrize("distribution", ["uniform", "global_magnitude"])
def test_the_end_of_a_phase_waits_for_the_device_a_few_times(layers, distribution, as_on_a_gpu):
    sparsifier = stack_of(layers, "c_gap", partitions=2, distribution=distribution)
    while not sparsifier.phase_ended:
        sparsifier.step()
    change, waits = counted(sparsifier.next_phase)
    assert [c.event for c in sparsifier.changes()][-2:] == ["prune", "grow"]
    assert waits <= 6  # kept counts, the mask's error, overlaps, and how many are active
    assert change.reads == 0


def test_most_kernels_of_an_update_serve_all_layers(as_on_a_gpu):
    few, many = (counted(stack_of(n, "rigl", every=2).step)[0].count for n in (2, 22))
    assert many - few <= 3 * 20  # two scores of each layer, and its optimiser's part
    assert many < 130


CASES = [*((method, 200) for method in methods), ("rigl", 2**22), ("c_gap", 2**22)]


@pytest.mark.parametrize(("method", "limit"), CASES)
def test_every_method_trains_to_the_same_bits_where_layers_are_changed_together(
    method, limit, request, monkeypatch
):
    alone = training_of(method, torch.device("cpu"))
    train(alone, Quiet())
    request.getfixturevalue("as_on_a_gpu")
    monkeypatch.setattr("gapbench.sparsity.joined.LIMIT", limit)  # some layers, or all, in one
    together = training_of(method, torch.device("cpu"))
    train(together, Quiet())
    assert_equal_states(alone.state_dict(), together.state_dict())


@pytest.mark.parametrize("method", ["rigl", "c_gap", "p_gap", "gradual"])
def test_factors_that_stay_in_their_places_hold_masks_as_masks_do(method):
    plain, placed = (training_of(method, torch.device("cpu")) for _ in range(2))
    factors = placed.sparsifier.weights.place()
    places = [factor.data_ptr() for factor in factors]
    for training in (plain, placed):
        train(training, Quiet())
    assert_equal_states(plain.state_dict(), placed.state_dict())
    assert [factor.data_ptr() for factor in placed.sparsifier.weights.place()] == places
    for factor, (name, param) in zip(
        factors, placed.sparsifier.weights.params.items(), strict=True
    ):
        mask = placed.sparsifier.masks.get(name, torch.ones_like(param, dtype=torch.bool))
        assert torch.equal(factor, mask.to(param.dtype))

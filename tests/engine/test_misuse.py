"""Where a Sparsifier could go wrong in silence: it does the right thing, or says so."""

from __future__ import annotations

import copy
import gc
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.amp import GradScaler

import gapbench
from gapbench.errors import UserError
from gapbench.methods.method import method, methods
from gapbench.plan.phases import Phase, Plan, names_of

STEPS = 5
GAP = {"partitions": 2, "step_epochs": 1, "steps": 4}


def net(seed=0):
    torch.manual_seed(seed)
    sizes = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    return nn.Sequential(*sizes)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def sparse(model, optimizer, name="c_gap", **options):
    options = {**(GAP if name == "c_gap" else {}), "sparsity": 0.9, "epochs": 6, **options}
    options = {key: value for key, value in options.items() if value is not None}
    return gapbench.Sparsifier(model, optimizer, name, steps_per_epoch=STEPS, **options)


def batches(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        inputs = torch.randn(32, 20, generator=generator)
        yield inputs, (inputs[:, 0] > 0).long()


def backward(model, inputs, labels):
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs), labels).backward()


def train(model, sparsifier, count):
    for inputs, labels in batches(count):
        backward(model, inputs, labels)
        sparsifier.step()


def weights(model):
    return [param.detach().clone() for param in model.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# -- load, then build; build, then load ------------------------------------------------------------


@pytest.mark.parametrize("order", ["m o b s", "m b o s", "b m o s", "b s m o", "b m s o"])
@pytest.mark.parametrize("name", ["c_gap", "rigl"])
def test_states_are_loaded_in_any_order(order, name):
    options = {"every": 3} if name == "rigl" else {}
    model = net()
    optimizer = sgd(model)
    whole = sparse(model, optimizer, name, **options)
    train(model, whole, 22)
    states = copy.deepcopy((model.state_dict(), optimizer.state_dict(), whole.state_dict()))
    again = net(3)
    for_again = sgd(again)
    for part in order.split():
        match part:
            case "m":
                again.load_state_dict(states[0])
            case "o":
                for_again.load_state_dict(states[1])
            case "b":
                built = sparse(again, for_again, name, **options)
            case "s":
                built.load_state_dict(states[2])
    assert equal(weights(again), weights(model))
    for own, with_ in ((model, whole), (again, built)):
        train(own, with_, 8)
    assert equal(weights(again), weights(model)) and built.verify() == whole.verify()


def test_weights_that_were_trained_are_not_erased_by_random_masks():
    model = net()
    optimizer = sgd(model)
    for inputs, labels in batches(5):
        backward(model, inputs, labels)
        optimizer.step()
    before = weights(model)
    built = sparse(model, optimizer)
    with pytest.raises(UserError, match=r"initial: .*optimiser has state of earlier steps"):
        train(model, built, 1)
    assert equal(weights(model), before)  # nothing is lost
    del built
    gc.collect()
    largest = sparse(model, optimizer, "static", initial="magnitude")
    for (name, mask), old in zip(largest.masks.items(), before[::2], strict=True):
        kept, dropped = old.abs()[mask], old.abs()[~mask]
        assert kept.min() >= dropped.max(), name
    train(model, largest, 30)
    assert largest.verify() == 0


def test_a_sparse_model_is_finetuned_with_its_own_zeros():
    model = net()
    first = sparse(model, sgd(model))
    train(model, first, 30)
    zeros = {name: ~mask for name, mask in first.masks.items()}
    with pytest.raises(UserError, match=r"0\.weight has a Sparsifier already: release"):
        sparse(model, sgd(model))
    del first
    gc.collect()
    second = sparse(model, sgd(model), "static")
    with pytest.raises(UserError, match=r"initial: .* has \d+ zeros of \d+ already"):
        train(model, second, 1)
    second.release()
    tuned = sparse(model, sgd(model), "static", initial="magnitude")
    train(model, tuned, 30)
    params = dict(model.named_parameters())
    assert all(not params[name][zero].any() for name, zero in zeros.items())
    assert tuned.verify() == 0


def test_a_layer_that_begins_as_zeros_is_no_sparse_one():
    model = net()
    nn.init.zeros_(model[4].weight)
    built = sparse(model, sgd(model))
    train(model, built, 30)
    assert built.verify() >= 0


def test_who_wants_random_masks_says_so():
    model = net()
    with torch.no_grad():
        model[2].weight[:32] = 0
    built = sparse(model, sgd(model), initial="random")
    train(model, built, 30)
    assert built.verify() == 0
    with pytest.raises(UserError, match="initial: unknown value 'largest'"):
        sparse(net(), sgd(model), initial="largest")


# -- plans -----------------------------------------------------------------------------------------


@pytest.fixture
def plugin():
    names = []

    def register(build):
        name = f"plugin_{len(names)}"
        names.append(name)
        method(name, label=name)(build)
        return name

    yield register
    for name in names:
        methods._entries.pop(name)


def test_a_plan_that_ends_dense_is_refused_but_for_dense_training(plugin):
    def ends_dense(layers, epochs, rng):
        parts = (Phase(epochs - 1), Phase(1, grow=names_of(layers)))
        return Plan(parts, initial="random")

    model = net()
    with pytest.raises(UserError, match=r"the plan ends with 3 dense layers \(0\.weight\)"):
        sparse(model, sgd(model), plugin(ends_dense))
    names = frozenset(n for n, p in model.named_parameters() if p.dim() > 1)
    whole = Plan((Phase(5), Phase(1, grow=names)), initial="random")
    with pytest.raises(UserError, match="the plan ends with 3 dense layers"):
        sparse(model, sgd(model), whole, epochs=None)
    sparse(model, sgd(model), "dense")


def test_a_plan_that_misses_its_budget_is_refused():
    model = net()
    with pytest.raises(UserError, match="epochs: the plan has 4 epochs, not 6"):
        sparse(model, sgd(model), Plan((Phase(4),), initial="random"))


@pytest.mark.parametrize("name", ["rigl", "set", "gradual"])
def test_updates_that_never_fall_due_are_an_error(name):
    model = net()
    if name == "gradual":  # its last step always prunes
        sparse(model, sgd(model), name, every=100)
        return
    with pytest.raises(UserError, match=r"every: no update falls into the 30 steps .*100 is too"):
        sparse(model, sgd(model), name)
    sparse(model, sgd(model), name, every=10)


def test_plug_ins_that_are_wrong_are_told_in_one_line(plugin):
    def nothing(layers, epochs, rng):
        return None

    def foreign(layers, epochs, rng):
        return Plan((Phase(1, grow=frozenset({"9.weight"})), Phase(epochs - 1)), initial="random")

    def bare(layers, epochs, rng, *, share):
        return Plan((Phase(epochs),), initial="random")

    model = net()
    for build, words in (
        (nothing, "it returns NoneType, not a Plan"),
        (foreign, "its plan grows 9.weight, which is not one of the layers"),
        (bare, "option share needs a default and an annotation"),
    ):
        with pytest.raises(UserError, match=words):
            sparse(model, sgd(model), plugin(build))


# -- layers ----------------------------------------------------------------------------------------


def test_frozen_layers_are_left_alone_and_refused_where_they_are_named():
    model = net()
    before = model[0].weight.detach().clone()
    model[0].requires_grad_(False)
    built = sparse(model, sgd(model))
    train(model, built, 30)
    assert torch.equal(model[0].weight, before) and [layer.name for layer in built.layers] == [
        "2.weight",
        "4.weight",
    ]
    with pytest.raises(UserError, match=r"layers: 0\.weight is frozen"):
        del built
        sparse(model, sgd(model), layers=["0.weight"])


def test_layers_that_take_no_part_keep_their_masks():
    model = nn.ModuleDict({"used": nn.Linear(20, 40), "idle": nn.Linear(30, 40)})
    built = sparse(model, sgd(model), "rigl", every=2)
    masks = {name: mask.clone() for name, mask in built.masks.items()}
    for inputs, _ in batches(20):
        model.zero_grad()
        model["used"](inputs).square().sum().mul(1e-3).backward()
        built.step()
    assert torch.equal(built.masks["idle.weight"], masks["idle.weight"])
    assert not torch.equal(built.masks["used.weight"], masks["used.weight"])


@pytest.mark.parametrize("how", ["assign", "module", "parent"])
def test_replaced_parameters_are_seen(how):
    model = nn.Sequential(net(), nn.Identity())
    built = sparse(model, sgd(model), "static")
    train(model, built, 10)
    if how == "assign":
        model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    elif how == "module":
        model[0][4] = nn.Linear(64, 2)
    else:
        model[0] = net(4)
    with pytest.raises(UserError, match="was replaced after its Sparsifier was built"):
        train(model, built, 1)
    with pytest.raises(UserError, match="was replaced after its Sparsifier was built"):
        built.verify()


def test_matrices_that_stay_dense_are_told_once_and_listed():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(20, 64, 2)
            self.out = nn.Linear(64, 2)

        def forward(self, inputs):
            return self.out(self.rnn(inputs)[0])

    model = Mixed()
    with pytest.warns(UserWarning, match=r"98% .* stay dense: rnn\.weight_ih_l0.*layers="):
        built = sparse(model, sgd(model), "static")
    assert "left dense: rnn.weight_hh_l1, 16,384 weights" in built.summary()
    assert "out.weight (2, 64): density 0.1016" in built.summary()
    del built
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        all_ = sparse(model, sgd(model), "static", layers=lambda name, param: param.dim() == 2)
    assert len(all_.layers) == 5


def test_layers_are_given_as_patterns_modules_or_densities():
    def chosen(**options):
        model = net()
        layers = options.pop("of")(model) if "of" in options else options.pop("layers", None)
        built = sparse(model, sgd(model), "static", layers=layers, **options)
        return built.densities()

    assert list(chosen(layers=["[24].*"])) == ["2.weight", "4.weight"]
    assert list(chosen(of=lambda model: [model[0], model[4]])) == ["0.weight", "4.weight"]
    by_layer = chosen(layers={"0.weight": 0.5, "2.weight": 0.25}, sparsity=None)
    assert by_layer == {"0.weight": 0.5, "2.weight": 0.25}
    by_pattern = chosen(distribution={"*": 0.1, "4.*": 1.0}, sparsity=None)
    assert by_pattern == pytest.approx({"0.weight": 0.1, "2.weight": 0.1, "4.weight": 1}, abs=1e-3)
    halves = chosen(distribution=lambda shapes, sparsity: dict.fromkeys(shapes, 1 - sparsity))
    assert halves == pytest.approx(dict.fromkeys(halves, 0.1), abs=2e-3)
    for options, words in (
        ({"layers": ["9.*"]}, "unknown layer '9"),
        ({"of": lambda model: [model[1]]}, "ReLU has no linear or convolution weight"),
        ({"distribution": {"0.*": 0.1}}, r"2\.weight has no density"),
        ({"distribution": {"*": 1.5}}, r"1\.5 of 0\.weight is not a density"),
        ({"layers": [3]}, "3 is not a name, pattern, module or function"),
        ({"sparsity": None}, "sparsity: give a number, or the density of every layer"),
    ):
        with pytest.raises(UserError, match=words):
            chosen(**options)


def test_models_that_cannot_be_pruned_are_told_in_one_line():
    for layer, words in (
        (nn.Linear(16, 8, dtype=torch.complex64), "torch.complex64: give real"),
        (nn.Linear(4, 0), "0.weight is empty"),
        (nn.LazyLinear(4), "0.weight has no shape yet"),
        (nn.Linear(4, 4, device="meta"), "0.weight is on the meta device"),
    ):
        model = nn.Sequential(layer)
        with pytest.raises(UserError, match=words):
            sparse(model, torch.optim.SGD(model.parameters(), 0.1), "static")
    model = net()
    built = gapbench.Sparsifier(
        model, sgd(model), "static", sparsity=np.float64(0.9), epochs=np.int64(6),
        steps_per_epoch=np.int32(5),
    )  # fmt: skip
    assert built.steps_per_epoch == 5
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
        model[0].weight[0, 1:] = float("nan")
    with pytest.raises(UserError, match=r"0\.weight has 20 weights that are not finite"):
        built.verify()


# -- optimisers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "Adafactor", "Muon"])
def test_gradients_of_masked_weights_move_no_others(kind):
    def ended(noise):
        model = net()
        matrices = [param for param in model.parameters() if param.dim() == 2]
        optimizer = getattr(torch.optim, kind)(matrices, 0.01)
        built = sparse(model, optimizer, "static")
        for inputs, labels in batches(30):
            backward(model, inputs, labels)
            for name, mask in built.masks.items():
                model.get_parameter(name).grad[~mask] *= noise
            built.step()
        return weights(model)

    assert equal(ended(1.0), ended(0.0))


def test_a_step_beside_the_sparsifiers_is_seen():
    model = net()
    optimizer = sgd(model)
    built = sparse(model, optimizer)
    inputs, labels = next(batches(1))
    backward(model, inputs, labels)
    optimizer.step()
    with pytest.raises(UserError, match=r"optimizer: its step\(\) was called, and"):
        built.step()


def test_a_scaler_skips_what_overflows_and_the_plan_does_not_count_it():
    model = net()
    built = sparse(model, sgd(model))
    scaler = GradScaler("cpu")
    for number, (inputs, labels) in enumerate(batches(31)):
        built.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(inputs), labels)).backward()
        if number == 7:
            model[0].weight.grad[0, 0] = float("inf")
        scaler.step(built)
        scaler.update()
        assert built.steps == number + (number < 7)
    assert built.verify() == 0 and built.done


def test_a_closure_is_called_as_an_optimiser_calls_it():
    losses, ends = [], []
    for closed in (False, True):
        model = net()
        built = sparse(model, sgd(model), "rigl", every=3)
        for inputs, labels in batches(30):

            def closure(model=model, inputs=inputs, labels=labels):
                model.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), labels)
                loss.backward()
                return loss

            if closed:
                losses.append(built.step(closure).item())
            else:
                closure()
                built.step()
        ends.append(weights(model))
    assert equal(*ends) and len(losses) == 30


def test_it_can_be_given_to_schedulers_and_accelerate():
    accelerate = pytest.importorskip("accelerate")
    model = net()
    plain = sparse(model, sgd(model))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(plain.optimizer, 30)
    for inputs, labels in batches(30):
        backward(model, inputs, labels)
        plain.step()
        scheduler.step()
    other = net()
    built = sparse(other, sgd(other))
    face = built.as_optimizer()
    accelerator = accelerate.Accelerator(cpu=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(face, 30)
    prepared, wrapped, scheduler = accelerator.prepare(other, face, scheduler)
    for inputs, labels in batches(30):
        wrapped.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(prepared(inputs), labels))
        wrapped.step()
        scheduler.step()
    assert equal(weights(model), weights(other)) and built.verify() == plain.verify()
    state = copy.deepcopy(face.state_dict())
    third = net()
    resumed = sparse(third, sgd(third)).as_optimizer()
    third.load_state_dict(other.state_dict())
    resumed.load_state_dict(state)
    assert resumed.sparsifier.verify() == built.verify()


def test_the_norm_of_clipping_is_that_of_the_weights_that_exist():
    model = net()
    built = sparse(model, sgd(model), "static")
    inputs, labels = next(batches(1))
    backward(model, inputs, labels)
    for name, mask in built.masks.items():
        model.get_parameter(name).grad[~mask] = 1e6
    params = dict(model.named_parameters())
    existing = [p.grad[built.masks[n]] if n in built.masks else p.grad for n, p in params.items()]
    norm = torch.cat([grad.flatten() for grad in existing]).norm()
    before = [grad.clone() for grad in existing]
    built.clip_grad_norm_(float(norm) / 2)
    after = [p.grad[built.masks[n]] if n in built.masks else p.grad for n, p in params.items()]
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(new, old / 2)


# -- states, averages, and sparse models at any time -----------------------------------------------


@pytest.mark.parametrize("changed", [{"steps_per_epoch": 10}, {"seed": 1}])
def test_a_state_that_was_counted_otherwise_is_refused(changed):
    model = net()
    built = sparse(model, sgd(model))
    train(model, built, 20)
    state = built.state_dict()
    del built
    gc.collect()
    other = net()
    options = {"sparsity": 0.9, "epochs": 6, "steps_per_epoch": STEPS, **GAP, **changed}
    again = gapbench.Sparsifier(other, sgd(other), "c_gap", **options)
    with pytest.raises(UserError, match=r"sparsifier state: it (has 5 steps|is of another plan)"):
        again.load_state_dict(state)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"distribution": 3},
            "distribution: 3 is not a name, a function or a mapping of densities",
        ),
        ({"distribution": [0.5]}, r"distribution: \[0.5\] is not a name, a function or a mapping"),
        (
            {"distribution": {3: 0.5}},
            "distribution: {3: 0.5} is not a name, a function or a mapping",
        ),
        ({"distribution": {"*": "a"}}, "distribution: 'a' of weight is not a density in"),
        ({"layers": 3}, "layers: 3 is not a name, pattern, module or function"),
        ({"name": "small_dense"}, "method: small_dense narrows the network of an ablation's task"),
    ],
)
def test_arguments_of_a_wrong_kind_are_told_in_one_line(given, told):
    model = nn.Linear(8, 8)
    with pytest.raises(UserError, match=told):
        sparse(model, sgd(model), given.pop("name", "static"), **given)


@pytest.mark.parametrize("state", [{}, None, [1], {"ledger": {}}])
def test_what_is_no_state_is_told_in_one_line(state):
    model = nn.Linear(8, 8)
    sparsifier = sparse(model, sgd(model), "static")
    with pytest.raises(UserError, match="sparsifier state: empty, or not from state_dict"):
        sparsifier.load_state_dict(state)


def test_averages_over_moving_masks_are_masked_and_verified_in_two_lines():
    model = net()
    built = sparse(model, sgd(model), "rigl", every=3)
    average = torch.optim.swa_utils.AveragedModel(model)
    for inputs, labels in batches(30):
        backward(model, inputs, labels)
        built.step()
        average.update_parameters(model)
    with pytest.raises(UserError, match="sparsity missed"):
        built.verify(average.module)
    built.apply_to(average.module)
    assert built.verify(average.module) == 0
    with pytest.raises(UserError, match=r"model: it has no 0\.weight of shape"):
        built.verify(nn.Linear(2, 2))


@pytest.mark.parametrize("steps", [1, 7, 13, 30])
@pytest.mark.parametrize("name", ["c_gap", "prune_from_dense", "gradual", "granet", "mest"])
def test_a_good_sparse_model_can_be_had_at_any_time(steps, name):
    model = net()
    options = {"prune_from_dense": {"dense_epochs": 3}, "c_gap": {}}.get(name, {"every": 4})
    built = sparse(model, sgd(model), name, **options)
    train(model, built, steps)
    before = weights(model)
    state = built.sparse_state_dict()
    assert equal(weights(model), before)
    copied = net(9)
    copied.load_state_dict(state)
    for layer in built.layers:
        zeros = int((state[layer.name] == 0).sum())
        assert zeros == int(0.9 * layer.numel), layer.name

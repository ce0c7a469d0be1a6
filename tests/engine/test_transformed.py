"""Weights that are transformed before the forward pass: what loops, optimisers and states see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gapbench.engine.sparsifier import Sparsifier
from gapbench.errors import UserError
from gapbench.methods.method import plan as method_plan
from gapbench.plan.phases import Parallel, Phase, Plan, Transform
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.digits import Digits
from gapbench.training.setup import Settings, build

STEPS = 30


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))


def learned(model, optimizer=torch.optim.SGD, method="str", **given):
    own = optimizer(model.parameters(), lr=0.05)
    return around(model, own, method, **given)


def around(model, own, method="str", **given):
    options = {"s_initial": -4.0, "s_decay": 1.0} if method == "str" else {}
    budget = {} if isinstance(method, Plan) else {"epochs": 6}
    return Sparsifier(model, own, method, steps_per_epoch=5, **budget, **options, **given)


def loss(model, step):
    inputs = torch.randn(32, 20, generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long())


def train(model, sparsifier, steps=STEPS):
    for _ in range(steps):
        sparsifier.zero_grad()
        loss(model, sparsifier.steps).backward()
        sparsifier.step()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adafactor])
def test_the_model_is_sparse_at_every_step_and_the_sparsity_is_told(optimizer):
    model = network()
    sparsifier = learned(model, optimizer)
    seen = []
    for _ in range(STEPS):
        train(model, sparsifier, 1)
        for name, mask in sparsifier.masks.items():
            assert torch.equal(mask, model.get_parameter(name) != 0)
        seen.append(sum(sparsifier.weights.active().values()))
    assert seen[-1] < seen[0] < 20 * 64 + 64 * 2
    assert sparsifier.densities()["0.weight"] == sparsifier.weights.active()["0.weight"] / 1280
    mean = sum(seen[:-1]) / (STEPS - 1) / 1408
    assert sparsifier.ledger.mean_density == pytest.approx(mean, rel=0.05)
    assert sparsifier.verify() == 0


def test_it_is_an_optimiser_for_trainers_and_their_scaler():
    model = network()
    sparsifier = learned(model)
    as_optimizer, scaler = sparsifier.as_optimizer(), torch.amp.GradScaler("cpu")
    for _ in range(STEPS // 2):
        as_optimizer.zero_grad()
        scaler.scale(loss(model, sparsifier.steps)).backward()
        scaler.step(as_optimizer)
        scaler.update()
    other = network()
    again = learned(other)
    other.load_state_dict(model.state_dict())
    again.as_optimizer().load_state_dict(as_optimizer.state_dict())
    train(model, sparsifier, 15)
    train(other, again, 15)
    assert torch.equal(model[0].weight, other[0].weight)


def test_thresholds_are_trained_as_the_weights_are():
    model = network()
    groups = [{"params": [model[0].weight, model[2].weight], "lr": 0.3, "weight_decay": 0.02},
              {"params": [model[0].bias, model[2].bias]}]  # fmt: skip
    own = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    sparsifier = Sparsifier(model, own, "str", epochs=6, steps_per_epoch=5)
    group = own.param_groups[-1]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.3, 0.02, 0.9)
    train(model, sparsifier, 5)
    assert all(value > -3200 for value in sparsifier._transformed.parameters.values())


def test_the_recipes_decay_is_that_of_thresholds():
    task = Digits()
    task.load(torch.device("cpu"))
    layers = layers_of(task.build_model(), ("layer1.0.conv1.weight", "fc.weight"))
    settings = Settings(
        recipe=task.recipe, plan=method_plan("str", layers, 6), distribution="emergent",
        first_layer="dense", sparsity=0.9, seed=0,
    )  # fmt: skip
    training = build(task, settings, torch.device("cpu"))
    assert training.optimizer.param_groups[-1]["weight_decay"] == task.recipe.weight_decay > 0


def test_a_straight_through_estimator_keeps_exact_counts_and_moves_masks():
    model = network()
    phase = Phase(6, grow=frozenset({"0.weight", "2.weight"}), label="train")
    plan = Plan((phase,), transform=Transform("straight_through"))
    sparsifier = learned(model, method=plan, sparsity=0.5, pattern="2:4")
    first = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    train(model, sparsifier)
    assert sparsifier.verify() == 0 and set(sparsifier.densities().values()) == {0.5}
    assert any((mask != first[name]).any() for name, mask in sparsifier.masks.items())
    groups = model[0].weight.reshape(-1, 4)
    assert (groups.count_nonzero(1) <= 2).all()


def test_giving_the_model_up_leaves_the_optimiser_as_it_was():
    model = network()
    sparsifier = learned(model)
    train(model, sparsifier)
    assert len(sparsifier.optimizer.param_groups) == 2
    sparsifier.release()
    assert len(sparsifier.optimizer.state_dict()["param_groups"]) == 1
    again = Sparsifier(model, sparsifier.optimizer, "fine_tune", sparsity=0.5, epochs=2,
                       steps_per_epoch=5)  # fmt: skip
    train(model, again, 5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sparsity": 0.9}, "sparsity: this method learns the sparsity"),
        ({"distribution": "erk"}, "distribution: this method learns the density of each layer"),
        ({"layers": {"*": 0.5}}, "distribution: this method learns the density of each layer"),
        ({"optimizer": torch.optim.LBFGS}, "optimizer: LBFGS evaluates the model several times"),
        ({"pattern": "2:4"}, "pattern: this method learns its masks: 2:4 is not possible"),
        ({"pattern": 5}, "pattern: 5 is unknown; valid: block:4x1"),
    ],
)
def test_what_would_do_nothing_is_refused(given, told):
    with pytest.raises(UserError) as error:
        learned(network(), **given)
    assert str(error.value).startswith(told)


def test_other_methods_do_not_learn_a_sparsity():
    with pytest.raises(UserError, match="distribution: this method learns no distribution"):
        model = network()
        Sparsifier(model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5,
                   epochs=2, steps_per_epoch=5, distribution="emergent")  # fmt: skip


@pytest.mark.parametrize("parts", [(Phase(1), Phase(1)), (Parallel((Phase(1),)),)])
def test_a_plan_with_a_transform_is_one_phase(parts):
    with pytest.raises(UserError, match="a plan with a transform has one phase"):
        Plan(parts, transform=Transform("soft_threshold", -4.0))


def test_a_threshold_without_its_first_value_is_no_plan_that_runs():
    plan = Plan((Phase(6, grow=frozenset({"0.weight", "2.weight"})),),
                transform=Transform("soft_threshold", budget="emergent"))  # fmt: skip
    with pytest.raises(ValueError, match="the plan gives no initial value"):
        learned(network(), method=plan)

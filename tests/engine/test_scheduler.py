"""Learning rates of a plan, in a loop of one's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gapbench.engine.sparsifier import Sparsifier
from gapbench.errors import UserError
from gapbench.tasks.task import Recipe
from gapbench.training.schedules import learning_rate

STEPS = 5


def sparse(method="c_gap", epochs=10, **options):
    model = nn.Linear(8, 8)
    groups = [{"params": [model.weight], "lr": 0.4}, {"params": [model.bias], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.4, momentum=0.9)
    given = {"steps_per_epoch": STEPS, "epochs": epochs, "sparsity": 0.5}
    return model, Sparsifier(model, optimizer, method, **given, **options)


def rates(model, sparsifier, scheduler):
    while not sparsifier.done:
        sparsifier.zero_grad()
        model(torch.ones(1, 8)).sum().backward()
        yield scheduler.get_last_lr()
        sparsifier.step()
        scheduler.step()


@pytest.mark.parametrize(
    "options",
    [
        {"partitions": 1, "step_epochs": 2, "steps": 3},
        {"partitions": 1, "step_epochs": 2, "steps": 3, "restart": False},
        {"partitions": 1, "step_epochs": 2, "steps": 3, "step_lr": "constant"},
        {"partitions": 1, "step_epochs": 2, "steps": 3, "step_lr": "constant", "restart": False},
    ],
)
def test_rates_are_those_of_the_suites_own_recipe(options):
    model, sparsifier = sparse(**options)
    scheduler = sparsifier.lr_scheduler("cosine", warmup_steps=3)
    recipe = Recipe(epochs=10, batch_size=1, lr=0.4, schedule="cosine", warmup_steps=3)
    plan, step = sparsifier.plan, 0
    for step, (rate, other) in enumerate(rates(model, sparsifier, scheduler)):
        segment = next(s for s in plan.segments if step < s.stop * STEPS)
        assert rate == pytest.approx(learning_rate(recipe, plan, segment, step, STEPS), rel=1e-12)
        assert other == pytest.approx(rate / 2)
    assert step == 49


def test_a_schedule_restarts_with_the_phase_and_ends_near_zero():
    model, sparsifier = sparse(partitions=1, step_epochs=2, steps=2)
    found = [r for r, _ in rates(model, sparsifier, sparsifier.lr_scheduler())]
    assert [found[0], found[10], found[20]] == [0.4, 0.4, 0.4]
    assert found[9] == pytest.approx(0.4 * (1 + math.cos(math.pi * 0.9)) / 2)


def test_a_function_of_the_share_is_a_shape():
    model, sparsifier = sparse("static", epochs=2)
    found = [r for r, _ in rates(model, sparsifier, sparsifier.lr_scheduler(lambda x: 1 - x / 2))]
    assert found == pytest.approx([0.4 * (1 - index / 20) for index in range(10)])


def test_it_goes_on_from_its_state():
    model, sparsifier = sparse("static")
    scheduler = sparsifier.lr_scheduler("linear")
    pairs = zip(range(20), rates(model, sparsifier, scheduler), strict=False)
    assert len(list(pairs)) == 20
    states = sparsifier.state_dict(), sparsifier.optimizer.state_dict(), scheduler.state_dict()
    model, again = sparse("static")
    later = again.lr_scheduler("linear")
    again.optimizer.load_state_dict(states[1])
    again.load_state_dict(states[0])
    later.load_state_dict(states[2])
    assert later.get_last_lr() == scheduler.get_last_lr() != later.base_lrs


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"shape": "cosin"}, "lr_scheduler: unknown shape 'cosin': did you mean 'cosine'?"),
        ({"warmup_steps": -1}, "warmup_steps: -1 is not possible: give 0 or more"),
        ({"warmup_steps": float("nan")}, "warmup_steps: nan is not possible: give 0 or more"),
        ({"shape": 3}, "lr_scheduler: 3 is neither a shape's name nor a function"),
        (
            {"shape": lambda share: "x"},
            "lr_scheduler: its function returned 'x'",
        ),
    ],
)
def test_what_is_no_schedule_is_told_in_one_line(arguments, told):
    with pytest.raises(UserError) as error:
        sparse("static")[1].lr_scheduler(**arguments)
    assert str(error.value).startswith(told)


def test_an_option_for_rates_that_nobody_follows_is_refused():
    model, sparsifier = sparse(partitions=1, step_epochs=2, steps=3, step_lr="constant")
    model(torch.ones(1, 8)).sum().backward()
    with pytest.raises(UserError, match="step_lr: nothing sets the learning rate"):
        sparsifier.step()
    sparsifier.lr_scheduler()
    sparsifier.step()

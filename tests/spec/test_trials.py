from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from pydantic import ValidationError

from gapbench.errors import UserError
from gapbench.plan.phases import Parallel, Phase, Plan
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.plan.updates.gradual import Gradual
from gapbench.spec.trials import Trial, planned
from gapbench.tasks.task import Recipe

WHOLE = {
    "task": "digits",
    "task_version": 1,
    "task_options": {},
    "recipe": Recipe(epochs=8, batch_size=64, lr=0.1),
    "plan": Plan((Phase(8, update=DropGrow("gradient")),), "random"),
    "distribution": "uniform",
    "first_layer": "dense",
    "sparsity": 0.9,
    "seed": 0,
    "engine": 1,
    "method": "rigl",
    "options": {"every": 100, "alpha": 0.3, "until": 0.75},
    "budget": "8",
}
PLANLESS = {name: value for name, value in WHOLE.items() if name != "plan"}
CHANGES = {
    "task": "wmt14_en_de",
    "task_version": 2,
    "recipe": Recipe(epochs=8, batch_size=64, lr=0.2),
    "plan": Plan((Phase(9, update=DropGrow("gradient")),), "random"),
    "distribution": "erk",
    "first_layer": "sparse",
    "sparsity": 0.8,
    "pattern": "2:4",
    "as_small_as": 0.9,
    "seed": 1,
    "engine": 2,
}
SPELLINGS = {"method": "set", "options": {"every": 10}, "budget": "1x"}


def test_equal_configurations_have_equal_keys():
    assert Trial(**WHOLE).key == Trial(**dict(reversed(WHOLE.items()))).key


def test_the_key_depends_on_what_numbers_depend_on_and_on_nothing_else():
    assert {*CHANGES, *SPELLINGS, "task_options"} == set(Trial.model_fields)
    key = Trial(**WHOLE).key
    assert all(Trial(**{**WHOLE, name: value}).key != key for name, value in CHANGES.items())
    assert all(Trial(**{**WHOLE, name: value}).key == key for name, value in SPELLINGS.items())
    sized = [{**WHOLE, "task": "fashion_mnist", "task_options": {"size": n}} for n in (14, 28)]
    assert len({Trial(**whole).key for whole in sized}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 9}, {"grow": frozenset({"fc.weight"})}, {"restart": False}, {"lr": "constant"},
        {"update": None}, {"update": DropGrow("random")}, {"update": Gradual()},
        {"update": DropGrow("gradient", every=99)}, {"update": DropGrow("gradient", until=0.5)},
        {"update": DropGrow("gradient", alpha=0.2)},
        {"update": DropGrow("gradient", replaces_step=False)},
    ],
)  # fmt: skip
def test_every_part_of_the_plan_changes_the_key(change):
    (phase,) = WHOLE["plan"].parts
    plan = Plan((replace(phase, **change),), "random")
    assert Trial(**{**WHOLE, "plan": plan}).key != Trial(**WHOLE).key
    dense = Trial(**{**WHOLE, "plan": Plan((phase,), "dense")})
    parallel = Trial(**{**WHOLE, "plan": Plan((Parallel((phase,)),), "random")})
    assert len({dense.key, parallel.key, Trial(**WHOLE).key}) == 3


@pytest.mark.parametrize("field", [f for f in Recipe.model_fields if f != "lr"])
def test_every_field_of_the_recipe_changes_the_key(field):
    changed = {
        "epochs": 9, "batch_size": 32, "optimizer": "adam", "momentum": 0.5, "nesterov": True,
        "betas": (0.8, 0.9), "weight_decay": 0.1, "decay_norms": True, "schedule": "step",
        "milestones": (0.5,), "decay_factor": 0.2, "warmup_epochs": 1.0, "warmup_steps": 5,
        "label_smoothing": 0.1, "clip_norm": 1.0, "bf16": True, "channels_last": True,
        "cpu_threads": 2, "ranks": 2, "portable": True,
    }  # fmt: skip
    recipe = Recipe(**{"epochs": 8, "batch_size": 64, "lr": 0.1, field: changed[field]})
    assert Trial(**{**WHOLE, "recipe": recipe}).key != Trial(**WHOLE).key


def test_a_trial_has_a_process_for_each_gpu_of_its_task_or_as_many_as_its_recipe_says():
    assert Trial(**WHOLE).ranks == 1
    imagenet = Trial(**{**WHOLE, "task": "imagenet"})
    assert imagenet.ranks == 8
    recipe = WHOLE["recipe"].model_copy(update={"ranks": 2})
    assert imagenet.model_copy(update={"recipe": recipe}).ranks == 2


def test_the_key_is_the_same_in_every_process():
    code = (
        "from tests.spec.test_trials import WHOLE; "
        "from gapbench.spec.trials import Trial; print(Trial(**WHOLE).key)"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "PATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == Trial(**WHOLE).key


@pytest.mark.parametrize(
    ("field", "value"),
    [("sparsity", 1.0), ("sparsity", True), ("plan", {}), ("engine", 1.5), ("seed", -1)],
)
def test_a_trial_that_is_not_possible_cannot_be_made(field, value):
    with pytest.raises(ValidationError, match=field):
        Trial(**{**WHOLE, field: value})


def test_a_trial_survives_its_file(tmp_path):
    options = {"partitions": 1, "patterns": (("conv*", "fc*"),), "step_epochs": None}
    trial = planned(8, **{**PLANLESS, "method": "c_gap", "options": options})
    file = tmp_path / "trial.json"
    file.write_text(json.dumps(trial.document()))
    again = Trial.read(file)
    assert again.key == trial.key
    assert (again.recipe, again.plan, again.budget) == (trial.recipe, trial.plan, trial.budget)


def test_a_file_whose_content_was_changed_is_refused(tmp_path):
    file = tmp_path / "trial.json"
    file.write_text(json.dumps({**Trial(**WHOLE).document(), "seed": 5}))
    with pytest.raises(UserError, match="does not match its content"):
        Trial.read(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"key": "x", "schema": 1}'])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text):
    file = tmp_path / "trial.json"
    file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}: [^\n]+$"):
        Trial.read(file)


@pytest.mark.parametrize(
    ("budget", "name"),
    [("", "RigL"), ("8", "RigL"), ("1x", "RigL"), ("1.0x", "RigL"), ("5x", "RigL 5x")],
)
def test_a_multiple_of_the_tasks_epochs_is_in_the_name(budget, name):
    trial = Trial(**{**WHOLE, "budget": budget})
    assert trial.label == f"{name} uniform 0.9 seed 0"


@pytest.mark.parametrize(("field", "word"), [("engine", "engine"), ("task_version", "digits")])
def test_a_trial_of_another_version_is_not_trained(field, word):
    Trial(**WHOLE).require_versions()
    with pytest.raises(UserError, match=f"version 9 of {word}, and gapbench has 1"):
        Trial(**{**WHOLE, field: 9}).require_versions()


def test_a_trial_of_the_first_schema_is_told_how_it_is_renewed(tmp_path):
    file = tmp_path / "trial.json"
    file.write_text('{"key": "x", "schema": 1, "task": "digits"}')
    with pytest.raises(UserError, match="has schema 1, not 2: `gapbench runs migrate` renews it"):
        Trial.read(file)


def test_a_dense_input_layer_is_no_layer_of_the_trial():
    inside = Trial(**{**WHOLE, "first_layer": "sparse"}).layers
    assert inside[0].name == "conv1.weight"
    assert Trial(**WHOLE).layers == inside[1:]


def test_a_copy_with_other_values_has_another_key():
    trial = Trial(**WHOLE)
    key = trial.key
    other = trial.model_copy(update={"seed": 7})
    assert other.key == Trial(**{**WHOLE, "seed": 7}).key != key
    assert trial.model_copy().key == trial.key == key

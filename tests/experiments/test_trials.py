from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from gapbench.errors import UserError
from gapbench.experiments.trials import Trial
from gapbench.tasks.task import Recipe

WHOLE = {
    "task": "digits",
    "task_version": 1,
    "task_options": {},
    "recipe": Recipe(epochs=8, batch_size=64, lr=0.1),
    "method": "rigl",
    "method_version": 1,
    "options": {"every": 100, "alpha": 0.3, "until": 0.75, "multiplier": 1},
    "distribution": "uniform",
    "first_layer": "dense",
    "sparsity": 0.9,
    "epochs": 8,
    "seed": 0,
}
CHANGES = {
    "task": "fashion_mnist",
    "task_version": 2,
    "task_options": {"size": 14},
    "recipe": Recipe(epochs=8, batch_size=64, lr=0.2),
    "method": "set",
    "method_version": 2,
    "options": {"every": 10, "alpha": 0.3, "until": 0.75, "multiplier": 1},
    "distribution": "erk",
    "first_layer": "sparse",
    "sparsity": 0.8,
    "epochs": 9,
    "seed": 1,
}


def test_equal_configurations_have_equal_keys():
    assert Trial(**WHOLE).key == Trial(**dict(reversed(WHOLE.items()))).key


@pytest.mark.parametrize("field", Trial.model_fields)
def test_every_field_changes_the_key(field):
    assert Trial(**{**WHOLE, field: CHANGES[field]}).key != Trial(**WHOLE).key


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
        "from tests.experiments.test_trials import WHOLE; "
        "from gapbench.experiments.trials import Trial; print(Trial(**WHOLE).key)"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "PATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == Trial(**WHOLE).key


@pytest.mark.parametrize(
    ("field", "value"),
    [("sparsity", 1.0), ("sparsity", True), ("epochs", 0), ("epochs", 1.5), ("seed", -1)],
)
def test_a_trial_that_is_not_possible_cannot_be_made(field, value):
    with pytest.raises(ValidationError, match=field):
        Trial(**{**WHOLE, field: value})


def test_a_trial_survives_its_file(tmp_path):
    options = {"partitions": 1, "patterns": (("conv*", "fc*"),), "step_epochs": None}
    trial = Trial(**{**WHOLE, "method": "c_gap", "options": options})
    file = tmp_path / "trial.json"
    file.write_text(json.dumps(trial.document()))
    again = Trial.read(file)
    assert again.key == trial.key
    assert again.recipe == trial.recipe


def test_a_file_whose_content_was_changed_is_refused(tmp_path):
    file = tmp_path / "trial.json"
    file.write_text(json.dumps({**Trial(**WHOLE).document(), "seed": 5}))
    with pytest.raises(UserError, match="does not fit its content"):
        Trial.read(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"key": "x", "schema": 1}'])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text):
    file = tmp_path / "trial.json"
    file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}: [^\n]+$"):
        Trial.read(file)


def test_a_multiplied_run_says_so_in_its_name():
    assert Trial(**WHOLE).name == "RigL"
    options = {**WHOLE["options"], "multiplier": 5}
    trial = Trial(**{**WHOLE, "options": options})
    assert trial.label == "RigL 5x uniform 0.9 seed 0"
    assert trial.plan().epochs == 5 * trial.epochs


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

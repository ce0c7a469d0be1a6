"""Run folders of the first schema, renewed: the same trials under the keys of today."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from gapbench.__main__ import main
from gapbench.base.documents import read_json, write_json
from gapbench.base.identity import without_neutral
from gapbench.runs.migrate import VERSIONS, old_key
from gapbench.runs.store import RunFolder
from gapbench.tasks.task import Recipe
from tests.runs import assert_equal, attempt, entry, prepared


def before(trial, **changes):
    """Return the document that the first schema had of a trial."""
    recipe = without_neutral(Recipe, trial.recipe.model_dump(mode="json"))
    document = trial.model_dump(mode="json", exclude={"plan", "engine", "budget"})
    document |= {
        "recipe": recipe,
        "method_version": VERSIONS.get(trial.method, 1),
        "epochs": trial.plan.epochs,
        **changes,
    }
    return {"key": old_key(document), "schema": 1, **document}


def aged(folder, trial, **changes):
    """Turn a folder of today into what the first schema left: its name, trial, plan and result."""
    document = before(trial, **changes)
    place = folder.path.with_name(document["key"])
    folder.path.rename(place)
    old = RunFolder(place)
    old.trial.write_text(json.dumps(document))
    (place / "plan.json").write_text("{}")
    if (result := read_json(old.result)) is not None:
        write_json(old.result, {**result, "key": document["key"]})
    for path in place.rglob("checkpoint.pt"):
        state = torch.load(path, weights_only=True)
        state["training"]["sparsifier"]["of"] = "what such hashes were"
        torch.save(state, path)
    return old


def migrated(results, capsys):
    code = main(["runs", "migrate", "--results", str(results)])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("only", ["c_gap", "p_gap"])
def test_an_interrupted_trial_goes_on_bitwise_under_its_new_key(tmp_path, capsys, only):
    chosen = entry(only=only)
    whole = prepared(tmp_path / "whole", chosen)
    assert attempt(whole) == "completed"
    begun = prepared(tmp_path / "begun", chosen)
    attempt(begun, until=3)
    assert begun.checkpoint.exists() and not begun.completed()
    old = aged(begun, chosen.trial)
    code, told = migrated(tmp_path / "begun", capsys)
    assert (code, told) == (0, [f"{old.path.name} is now {chosen.trial.key}"])
    assert not old.path.exists() and not (begun.path / "plan.json").exists()
    assert attempt(begun) == "completed"
    assert_equal(whole, begun)
    assert migrated(tmp_path / "begun", capsys) == (0, [])  # it is renewed


def test_a_completed_trial_is_one_of_today(tmp_path, capsys):
    chosen = entry(only="static")
    folder = prepared(tmp_path, chosen)
    assert attempt(folder) == "completed"
    bits = {path.name: path.read_bytes() for path in (folder.model, folder.history)}
    aged(folder, chosen.trial)
    # killed between two of its steps, it is renewed by the next call
    half = RunFolder(folder.path.with_name(before(chosen.trial)["key"]))
    write_json(half.trial, chosen.trial.document())
    write_json(half.result, {**read_json(half.result), "key": chosen.trial.key})
    assert migrated(tmp_path, capsys)[0] == 0
    assert folder.completed() and folder.state() == "completed"
    assert bits == {path.name: path.read_bytes() for path in (folder.model, folder.history)}


def test_rigls_multiplier_is_in_the_epochs_and_the_name(tmp_path, capsys):
    chosen = entry(only="RigL 5x")
    folder = prepared(tmp_path, chosen)
    options = {**chosen.trial.options, "multiplier": 5}
    aged(folder, chosen.trial, options=options, epochs=chosen.trial.plan.epochs // 5)
    assert migrated(tmp_path, capsys)[0] == 0
    renewed = read_json(folder.trial)
    assert (renewed["key"], renewed["budget"]) == (chosen.trial.key, "5x")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method_version": 9}, "its plan has version 9 of static, which gapbench does not make"),
        ({"task_version": 9}, "it trained version 9 of digits"),
        ({"options": {"gone": 1}}, "unknown option of static 'gone'"),
        ({"task": "gone"}, "unknown task 'gone'"),
        ({"seed": "x"}, "trial.json is not a trial"),
    ],
)
def test_what_nothing_here_trains_stays_as_it_is(tmp_path, capsys, changes, reason):
    chosen = entry(only="static")
    old = aged(prepared(tmp_path, chosen), chosen.trial, **changes)
    code, told = migrated(tmp_path, capsys)
    assert code == 1 and len(told) == 1 and told[0].startswith(f"{old.path.name} stays: {reason}")
    assert old.trial.exists()


def test_what_is_there_already_is_not_replaced(tmp_path, capsys):
    chosen = entry(only="static")
    folder = prepared(tmp_path, chosen)
    old = aged(folder, chosen.trial)
    shutil.copytree(old.path, tmp_path / "runs" / "changed")
    document = json.loads((tmp_path / "runs" / "changed" / "trial.json").read_text())
    write_json(tmp_path / "runs" / "changed" / "trial.json", {**document, "seed": 7})
    prepared(tmp_path, chosen)
    (tmp_path / "runs" / "empty").mkdir()
    code, told = migrated(tmp_path, capsys)
    assert code == 1 and sorted(told) == sorted(
        [
            f"{old.path.name} stays: {chosen.trial.key} is the same trial, and exists already",
            f"changed stays: its key {old.path.name} does not match its content",
            "empty stays: trial.json: No such file or directory",
        ]
    )


def test_a_trial_that_is_being_run_stays(tmp_path, capsys):
    chosen = entry(only="static")
    old = aged(prepared(tmp_path, chosen), chosen.trial)
    with old.owned():
        code, told = migrated(tmp_path, capsys)
    assert code == 1 and "is being run by process" in told[0] and old.trial.exists()

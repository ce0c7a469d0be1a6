"""Keys of trials: what they depend on, and that what is added to the code leaves them as they are.

Whoever breaks a golden key says so in the CHANGELOG: results under it are lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from gapbench.base.identity import Neutral, digest, neutral_values, with_neutral, without_neutral
from gapbench.methods import method as registered
from gapbench.methods.method import Method, methods, options_model
from gapbench.methods.rigl import rigl
from gapbench.plan.document import document_of, identity_of, plan_of
from gapbench.plan.phases import Phase, Plan
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.runs.migrate import renewed
from gapbench.spec import models
from gapbench.spec.trials import Trial, planned
from gapbench.tasks.digits import Digits
from gapbench.tasks.task import Recipe, tasks

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
NAMES = [
    f"{line['before']['task']}-{line['before']['method']}-{line['key'][:4]}" for line in GOLDEN
]
DIGITS = {
    "task": "digits",
    "task_version": 1,
    "task_options": {},
    "recipe": Recipe(epochs=6, batch_size=64, lr=0.1),
    "method": "rigl",
    "options": {"every": 10, "alpha": 0.3, "until": 0.75},
    "distribution": "uniform",
    "first_layer": "dense",
    "sparsity": 0.9,
    "seed": 0,
}
KEY = "40d03fc3fa99940b"


@pytest.mark.parametrize("line", GOLDEN, ids=NAMES)
def test_golden_keys(line, request):
    """Each is that of a committed trial, known by the document that it was trained from."""
    if line["before"]["task"] == "docs_en_de":
        request.getfixturevalue("fairseq")
    assert renewed(line["before"]).key == line["key"]


def test_golden_key_of_a_trial_that_was_never_committed():
    assert planned(6, **DIGITS).key == KEY


# -- two spellings of one plan are one trial -------------------------------------------------------


def test_dsd_is_c_gap_with_one_partition():
    shared = {"steps": 2, "step_epochs": 2, "restart": True, "step_lr": "recipe"}
    dsd = planned(6, **{**DIGITS, "method": "dsd", "options": shared})
    c_gap = planned(6, **{**DIGITS, "method": "c_gap", "options": {**shared, "partitions": 1}})
    assert dsd.key == c_gap.key and dsd.name != c_gap.name


@pytest.mark.parametrize("budget", ["5x", "30", ""])
def test_the_same_epochs_are_the_same_trial_however_they_are_written(budget):
    assert planned(30, **DIGITS, budget=budget).key == planned(30, **DIGITS).key


def test_names_of_phases_are_not_in_the_key():
    trial = planned(6, **DIGITS)
    (phase,) = trial.plan.parts
    named = trial.model_copy(update={"plan": Plan((replace(phase, label="else"),), "random")})
    assert named.key == trial.key
    longer = trial.model_copy(update={"plan": Plan((replace(phase, epochs=7),), "random")})
    assert longer.key != trial.key


# -- what is added later ---------------------------------------------------------------------------


class GrownRecipe(Recipe):
    """A recipe of some later version."""

    noise: Annotated[float, Neutral(0.0)] = 0.5
    cuts: Annotated[tuple[int, ...], Neutral(())] = ()


class GrownTrial(Trial):
    """A trial of some later version."""

    recipe: GrownRecipe
    shade: Annotated[str, Neutral("none")] = "dark"


@dataclass(frozen=True)
class GrownPhase(Phase):
    """A phase of some later version."""

    power: Annotated[int, Neutral(1)] = 2


@dataclass(frozen=True)
class GrownUpdate(DropGrow):
    """An update of some later version."""

    soft: Annotated[bool, Neutral(False)] = False


def grown(recipe: GrownRecipe, **settings):
    return GrownTrial(**{**dict(planned(6, **DIGITS)), **settings, "recipe": recipe})


def test_a_field_that_is_added_to_recipe_and_trial_changes_no_key():
    old = Recipe.model_dump(DIGITS["recipe"])
    neutral = GrownRecipe(**old, noise=0.0)
    assert grown(neutral, shade="none").key == KEY
    assert grown(neutral).key != KEY  # the default, which is another trial
    assert grown(GrownRecipe(**old), shade="none").key != KEY
    assert grown(GrownRecipe(**old, noise=0.0, cuts=(1,)), shade="none").key != KEY


def test_a_document_from_before_a_field_has_its_neutral_value_and_not_its_default():
    read = GrownTrial.of_document(planned(6, **DIGITS).document())
    assert (read.shade, read.recipe.noise, read.key) == ("none", 0.0, KEY)


def test_a_field_that_is_added_to_phases_and_updates_changes_no_key():
    trial = planned(6, **DIGITS)
    (phase,) = trial.plan.parts
    update = GrownUpdate("gradient", 10, 0.75, 0.3)
    values = {**vars(phase), "update": update}
    same, other = GrownPhase(**values, power=1), GrownPhase(**values)
    assert identity_of(Plan((same,), "random")) == identity_of(trial.plan)
    assert identity_of(Plan((other,), "random")) != identity_of(trial.plan)
    softer = replace(same, update=replace(update, soft=True))
    assert identity_of(Plan((softer,), "random")) != identity_of(trial.plan)


def test_an_option_that_is_added_to_a_method_changes_no_key(monkeypatch):
    def more(layers, epochs, rng, *, every: int = 100, alpha: float = 0.3, until: float = 0.75,
             shade: int = 3):  # fmt: skip
        return rigl(layers, epochs, rng, every=every, alpha=alpha, until=until)

    monkeypatch.setitem(methods._entries, "rigl", Method("rigl", "RigL", more))
    registered.options_model.cache_clear()
    try:
        assert "shade" in options_model("rigl").model_fields
        assert planned(6, **DIGITS).key == KEY
        changed = {**DIGITS, "options": {**DIGITS["options"], "shade": 9}}
        assert planned(6, **changed).key == KEY  # it does nothing to the plan
    finally:
        registered.options_model.cache_clear()


@pytest.mark.parametrize(("value", "same"), [(0, True), (2, False)])
def test_an_option_that_is_added_to_a_task_changes_no_key(monkeypatch, value, same):
    class Grown(Digits):
        def __init__(self, *, blur: Annotated[int, Neutral(0)] = 2) -> None:
            super().__init__()
            self.blur = blur

    monkeypatch.setitem(tasks._entries, "digits", Grown)
    for cached in (models.task_options_model, models._proxy, models.layers_of_trial):
        cached.cache_clear()
    try:
        assert (planned(6, **{**DIGITS, "task_options": {"blur": value}}).key == KEY) is same
        document = {**planned(6, **DIGITS).document(), "task_options": {}}
        assert Trial.of_document(document).task_options["blur"] == 0
    finally:
        for cached in (models.task_options_model, models._proxy, models.layers_of_trial):
            cached.cache_clear()


def test_another_default_gives_another_key_to_those_that_had_it():
    changed = {**DIGITS, "options": {**DIGITS["options"], "alpha": 0.2}}
    assert planned(6, **changed).key != KEY
    recipe = DIGITS["recipe"].model_copy(update={"momentum": 0.8})
    assert planned(6, **{**DIGITS, "recipe": recipe}).key != KEY


def test_fields_that_came_after_schema_2_declare_what_they_were():
    assert neutral_values(Recipe) == {"ranks": None, "portable": False}
    assert neutral_values(Trial) == {"pattern": "unstructured", "as_small_as": None}
    assert neutral_values(Phase) == {}
    assert neutral_values(DropGrow) == {"drop": "magnitude", "coefficient": 0.0}


# -- the parts -------------------------------------------------------------------------------------


def test_equal_numbers_have_one_digest_and_others_have_not():
    assert digest({"a": 1, "b": [2.0, True]}) == digest({"b": (2, True), "a": 1.0})
    assert digest([1]) != digest([True]) != digest(["1"]) != digest([1.5])
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))


def test_neutral_values_are_left_out_and_filled_in():
    assert without_neutral(GrownRecipe, {"noise": 0.0, "cuts": [], "lr": 1}) == {"lr": 1}
    assert without_neutral(GrownRecipe, {"noise": 0.5}) == {"noise": 0.5}
    filled = with_neutral(GrownRecipe, {"noise": 0.5})
    assert (filled["noise"], filled["cuts"], filled["portable"]) == (0.5, (), False)


@pytest.mark.parametrize("name", list(methods))
def test_a_plan_survives_its_document(name):
    layers = planned(6, **DIGITS).layers
    plan = registered.plan(name, layers, 60)
    again = plan_of(json.loads(json.dumps(document_of(plan))))
    assert again == plan and again.segments == plan.segments


PHASE = {"epochs": 1, "grow": [], "update": None, "restart": True, "lr": "recipe", "label": ""}


@pytest.mark.parametrize(
    "document",
    [
        *(None, 3, "x", [], {}, {"initial": "dense"}, {"initial": "x", "parts": [PHASE]}),
        {"initial": "dense", "parts": []},
        *({"initial": "dense", "parts": [part]} for part in (None, 1, {}, {"branches": 3})),
        *(
            {"initial": "dense", "parts": [{**PHASE, name: value}]}
            for name, value in (
                *(("epochs", 0), ("epochs", "x"), ("epochs", None), ("grow", 1), ("more", 1)),
                *(("lr", "fast"), ("update", {"kind": "none"}), ("update", {"kind": "drop_grow"})),
                ("update", {"kind": "gradual", "every": float("nan")}),
            )
        ),
    ],
)
def test_a_document_that_is_no_plan_is_refused_in_one_line(document):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        plan_of(document)


def test_fields_with_bounds_may_be_neutral():
    class Bounded(Recipe):
        level: Annotated[int, Neutral(1)] = Field(default=2, ge=1)

    assert neutral_values(Bounded)["level"] == 1

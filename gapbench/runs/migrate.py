"""Migration of run folders of earlier versions: new keys of trials, and new names of run folders.

Before schema 2 a trial's key was a hash of its row as written, and any new option changed the key.
Since schema 2 the key is a hash of the resolved plan, so no further migration is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gapbench.base.documents import read_document, write_json
from gapbench.base.identity import DIGITS, with_neutral
from gapbench.errors import UserError
from gapbench.runs.store import RunFolder
from gapbench.spec.trials import SCHEMA, Trial, planned
from gapbench.tasks.task import Recipe, tasks

# of methods, when keys still named them; older ones made other plans
VERSIONS = {"c_gap": 2, "dsd": 2}
PLAN = "plan.json"  # which trial.json holds since


@dataclass(frozen=True)
class Renewed:
    """The result of migrating a run folder: its new key, or the reason why it is unchanged."""

    before: str
    key: str | None
    reason: str = ""


def renewed(document: Mapping[str, Any]) -> Trial:
    """Return the trial of a document of schema 1.

    Raises:
        UserError: if the document does not match its key, or no current method makes its plan.
        ValueError, KeyError, TypeError: if the value is no such document.
    """
    whole = dict(document)
    key, schema = whole.pop("key"), whole.pop("schema")
    if schema != 1:
        raise UserError(f"has schema {schema}, not 1")
    if key != old_key(whole):
        raise UserError(f"its key {key} does not match its content")
    name, version = whole["method"], whole.pop("method_version")
    if version != VERSIONS.get(name, 1):
        raise UserError(f"its plan has version {version} of {name}, which gapbench does not make")
    if whole["task_version"] != tasks[whole["task"]].version:
        raise UserError(f"it trained version {whole['task_version']} of {whole['task']}")
    options = dict(whole.pop("options"))
    times = options.pop("multiplier", 1)
    epochs = times * whole.pop("epochs")
    recipe = Recipe(**with_neutral(Recipe, whole.pop("recipe")))
    budget = f"{times}x" if times != 1 and epochs == times * recipe.epochs else str(epochs)
    return planned(epochs, **whole, recipe=recipe, options=options, budget=budget)


def old_key(whole: Mapping[str, Any]) -> str:
    """Return the key that a trial of these settings had in schema 1."""
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def migrate(results: Path) -> Iterator[Renewed]:
    """Renew every run folder under `results`/runs, one after another; renewed folders stay renewed.

    A folder that cannot be renewed, or whose trial has another folder already, stays as it is.
    """
    for place in sorted((results / "runs").glob("[!.]*")):
        if place.is_dir():
            folder = RunFolder(place)
            try:
                document = read_document(folder.trial)
                found = _migrate(folder, document)
                if found is not None:
                    yield found
            except OSError as error:
                yield Renewed(place.name, None, f"trial.json: {error.strerror}")
            except UserError as error:
                yield Renewed(place.name, None, str(error))
            except (ValidationError, ValueError, KeyError, TypeError):
                yield Renewed(place.name, None, "trial.json is not a trial")


def _migrate(folder: RunFolder, document: Mapping[str, Any]) -> Renewed | None:
    """Renew a folder; return None if there is nothing to renew."""
    before = folder.path.name
    schema = document.get("schema")
    trial = Trial.of_document(document) if schema == SCHEMA else renewed(document)
    if trial.key == before:
        return None
    place = folder.path.with_name(trial.key)
    if place.exists():
        return Renewed(before, None, f"{trial.key} is the same trial, and exists already")
    if folder.state() == "queued":
        return Renewed(before, None, "it waits for a job: cancel the trial first")
    with folder.owned():
        for path in (folder.checkpoint, *(branch.checkpoint for *_, branch in folder.branches())):
            if path.exists():
                _renew(path, trial)
        result = folder.read_result()
        # in this order each file is found again if the next file is never written
        if result is not None:
            write_json(folder.result, {**result, "key": trial.key})
        write_json(folder.trial, trial.document())
        (folder.path / PLAN).unlink(missing_ok=True)
        os.rename(folder.path, place)
    RunFolder(place).owner.unlink(missing_ok=True)
    return Renewed(before, trial.key)


def _renew(path: Path, trial: Trial) -> None:
    """Replace the hash of the plan in a checkpoint by the hash of the current version."""
    import torch

    from gapbench.engine.arguments import fingerprint
    from gapbench.engine.targets import Targets
    from gapbench.sparsity.pattern import pattern_of
    from gapbench.training import state

    whole = state.load(path, torch.device("cpu"))
    place = (trial.layers, trial.sparsity, trial.distribution, trial.plan)
    targets = Targets(*place, pattern_of(trial.pattern))
    with state.restoring(path):
        whole["training"]["sparsifier"]["of"] = fingerprint(trial.plan, targets)
    state.save(path, whole)

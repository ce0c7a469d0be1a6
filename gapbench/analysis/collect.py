"""Collection of run folders into one tidy frame. No other module of the report reads results.

A run folder is accepted only if its trial.json matches its name and its result.json is whole. Every
rejected folder is listed with the reason, and never stops the report.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from gapbench.analysis.records import COMPLETED, plain, records_of
from gapbench.base.documents import read_document
from gapbench.errors import UserError
from gapbench.runs.documents import Result, checked
from gapbench.runs.store import RunFolder
from gapbench.spec.grid import Entry
from gapbench.spec.trials import Trial

RUNS = "runs.csv"
PARTS = (
    "sparsity", "density", "parameters", "cost", "exploration", "digest", "environment",
    "signatures",
)  # fmt: skip
# entries of a result about its origin
PROVENANCE = (
    "epochs", "wall_epochs", "seconds", "attempts", "ranks", "command", "data_sha256", "finished",
)  # fmt: skip
_KERNEL = re.compile(r"^(Linux-[\d.]+).*?(?=-(?:x86_64|aarch64|ppc64le|riscv64))")


@dataclass(frozen=True)
class LeftOut:
    """A folder or file that the report does not use, and the reason.

    Attributes:
        unfinished: whether the reason is only that the trial has not completed.
    """

    place: str
    reason: str
    unfinished: bool = False


@dataclass(frozen=True)
class Run:
    """One completed trial.

    Attributes:
        result: the content of result.json.
        place: the run folder or the trials.jsonl from which the trial was read.
        folder: the trial's run folder, or None.
    """

    trial: Trial
    result: Mapping[str, Any]
    place: Path
    folder: RunFolder | None = None


@dataclass(frozen=True)
class Scan:
    """The content of the run folders of one results folder."""

    runs: Mapping[str, Run]
    states: Mapping[str, str]
    left_out: tuple[LeftOut, ...]

    def beside(self, published: Iterable[Run]) -> Scan:
        """Return this scan with published runs added for trials without a folder."""
        here = {*self.runs, *self.states}
        others = {run.trial.key: run for run in published if run.trial.key not in here}
        return replace(self, runs={**self.runs, **others})

    @property
    def damaged(self) -> list[LeftOut]:
        """The folders and files left out for another reason than an unfinished trial."""
        return [left for left in self.left_out if not left.unfinished]


def scan(results: Path) -> Scan:
    """Read every folder under `results`/runs; there may be none.

    Raises:
        UserError: if the folder cannot be listed.
    """
    runs: dict[str, Run] = {}
    states: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for entry in _entries(results / "runs"):
        if not entry.is_dir():  # one on another disk may be linked in
            left_out.append(LeftOut(f"runs/{entry.name}", "not a folder"))
            continue
        folder = RunFolder(Path(entry.path))
        try:
            run, state = read_run(folder), folder.state()
        except UserError as error:
            left_out.append(LeftOut(f"runs/{entry.name}", str(error)))
            continue
        except Exception as error:  # whatever a folder holds, it does not stop the report
            what = f"cannot be read: {type(error).__name__}"
            left_out.append(LeftOut(f"runs/{entry.name}", what))
            continue
        if run is None:
            states[entry.name] = state
            reason = f"no result yet: {state}"
            left_out.append(LeftOut(f"runs/{entry.name}", reason, unfinished=True))
        else:
            runs[entry.name] = run
    left_out.sort(key=lambda left: left.unfinished)
    return Scan(runs, states, tuple(left_out))


def read_run(folder: RunFolder) -> Run | None:
    """Return a completed run, or None if there is no result yet.

    Raises:
        UserError: with the reason for rejecting the folder.
    """
    trial, result = _trial(folder), _result(folder)
    if result is None:
        return None
    return Run(trial, checked_result(result, trial), folder.path, folder)


def folders_of(results: Path) -> list[RunFolder]:
    """Return every folder under `results`/runs."""
    return [RunFolder(Path(e.path)) for e in _entries(results / "runs") if e.is_dir()]


def _entries(root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{root}: cannot be listed: {error.strerror}") from None


def _trial(folder: RunFolder) -> Trial:
    if not os.path.lexists(folder.trial):
        raise UserError("no trial.json: not a run folder")
    try:
        trial = Trial.read(folder.trial)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{folder.trial}: ")) from None
    key = trial.key
    if key != folder.path.name:
        raise UserError(f"trial.json belongs to trial {key}: the folder was renamed or copied")
    return trial


def _result(folder: RunFolder) -> dict[str, Any] | None:
    """Return result.json or None if it is absent; raise UserError with the reason if damaged."""
    try:
        result = read_document(folder.result)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"result.json: {error.strerror}") from None
    except ValueError:
        raise UserError("result.json is damaged or half-written") from None
    return result


def checked_result(result: Mapping[str, Any], trial: Trial) -> dict[str, Any]:
    """Return a trial's result, without the entries that do not leave the machine.

    Raises:
        UserError: with the reason for rejecting the result.
    """
    if result.get("key") != trial.key:
        raise UserError("result.json belongs to another trial")
    ranks = result.get("ranks", trial.recipe.ranks)
    if ranks != trial.recipe.ranks and ranks != trial.ranks:
        words = "its numbers belong to another trial"
        raise UserError(f"trained by {ranks} processes, not {trial.ranks}: {words}")
    checked(Result, result, "result.json")
    return {**result, "environment": _shareable(result.get("environment", {}))}


def _shareable(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a run's environment that a report shows; the run folder has all.

    Reports are shared. The host's name and a site's own name of its kernel stay on the machine;
    they have no influence on a result.
    """
    told = {name: value for name, value in environment.items() if name != "host"}
    if isinstance(told.get("system"), str):
        told["system"] = _KERNEL.sub(r"\1", told["system"])
    return told


# -- one row a trial -----------------------------------------------------------------------------


def runs_frame(entries: Sequence[Entry], found: Scan) -> pd.DataFrame:
    """Return a frame with one row per trial of `entries`, in their order, run or not.

    The columns are key, state, the settings of `Entry.fields()`, metrics as split/name, and every
    number of result.json as part/name ("cost/train_flops_ratio", "exploration/coverage").
    """
    rows = records_of(entries)
    for row in rows:
        run = found.runs.get(row["key"])
        row["state"] = COMPLETED if run else found.states.get(row["key"], row["state"])
        row.update(measured(run.result) if run else ())
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pd.DataFrame(columns, dtype=object)


def measured(result: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the column name in runs.csv and the value of every number and word of a result."""
    yield from result["metrics"].items()
    for part in PARTS:
        for name, value in result.get(part, {}).items():
            if not isinstance(value, (dict, list)):
                yield f"{part}/{name}", value
    for name in PROVENANCE:
        if name in result:
            yield f"run/{name}", plain(result[name])


def write_runs(frame: pd.DataFrame, path: Path) -> None:
    """Write the frame as CSV with all digits; NaN, the mark of a diverged run, becomes "nan"."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(frame.columns)
        writer.writerows(frame.itertuples(index=False, name=None))

"""The evidence in git: results/<scale>/<ablation>/trials.jsonl, one line per completed trial.

A line has the row's label, trial.json, the shareable part of result.json, and a checksum. Tables,
answers and claims follow from these lines, and a trial can be run again from them. Every line after
the first names an earlier trial under "like" and leaves out the values that this trial has, too.
The checksum covers the whole content, with the values that are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gapbench.analysis.collect import Run, Scan, checked_result, runs_frame, scan
from gapbench.base.documents import (
    TEXT_BYTES,
    opened,
    parse,
    read_text,
    require_real,
    sealed,
    write_text,
)
from gapbench.errors import UserError
from gapbench.spec.grid import Entry
from gapbench.spec.trials import Trial

TRIALS = "trials.jsonl"
LIKE = "like"
LINE_BYTES = 1_000_000  # of one trial; a model with a thousand layers takes a tenth of it
WHOLE = "="  # key of a mapping that has other keys than the earlier trial's mapping


@dataclass(frozen=True)
class Kept:
    """The content of one trials.jsonl: trials as their ablation has them, and their results."""

    entries: tuple[Entry, ...]
    runs: tuple[Run, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """A frame with one row per trial, as from `runs_frame`."""
        found = {run.trial.key: run for run in self.runs}
        return runs_frame(self.entries, Scan(found, {}, ()))


def path_of(results: Path, scale: str, ablation: str) -> Path:
    """Return the path of the evidence of an ablation at a scale."""
    return results / scale / ablation / TRIALS


def write_trials(path: Path, entries: Iterable[Entry], runs: Sequence[Run]) -> None:
    """Write the trials of `entries` that have run, in their order.

    Raises:
        OSError: if the file cannot be written.
    """
    found = {run.trial.key: run for run in runs}
    kept = [entry for entry in entries if entry.trial.key in found]
    lines = [_line(entry, found[entry.trial.key]) for entry in kept]
    rows: dict[str, dict[str, Any]] = {}
    texts = []
    for line in lines:
        row = {name: value for name, value in line["trial"].items() if name not in ("key", "seed")}
        first = rows.setdefault(json.dumps(row), line)
        like = first if first is not line else lines[0]
        if like is not line:
            line = {LIKE: like["trial"]["key"], **changes(like, line)}
        texts.append(json.dumps(line, separators=(",", ":")))
    write_text(path, "".join(f"{text}\n" for text in texts))


def _line(entry: Entry, run: Run) -> dict[str, Any]:
    result = {name: value for name, value in run.result.items() if name != "key"}
    line = sealed({"label": entry.name, "trial": entry.trial.document(), "result": result})
    return dict(json.loads(json.dumps(line)))  # tuples become lists, as they will be read


def changes(earlier: Any, later: Any) -> Any:
    """Return what `changed` needs to make `later` of `earlier`, two JSON values.

    Of a mapping with the same keys only the values that differ remain; {"=": value} stands for a
    mapping with other keys.
    """
    if not isinstance(later, dict):
        return later
    if not isinstance(earlier, dict) or list(earlier) != list(later) or WHOLE in later:
        return {WHOLE: later}
    return {
        name: changes(earlier[name], value)
        for name, value in later.items()
        if json.dumps(earlier[name]) != json.dumps(value)  # 1, 1.0 and true are equal in Python
    }


def changed(earlier: Any, change: Any) -> Any:
    """Return the JSON value of which `changes` told the difference.

    Raises:
        ValueError: if `change` is not a change of `earlier`.
    """
    if not isinstance(change, dict):
        return change
    if list(change) == [WHOLE]:
        return change[WHOLE]
    if not isinstance(earlier, dict):
        raise ValueError("the earlier trial has no mapping where this trial changes one")
    if missing := sorted(change.keys() - earlier.keys()):
        raise ValueError(f"the earlier trial has no value {missing[0]!r} to change")
    return earlier | {name: changed(earlier[name], value) for name, value in change.items()}


def read_trials(path: Path, results: Path) -> Kept:
    """Read a file that `write_trials` wrote; links out of the results folder are refused.

    Raises:
        UserError: naming the damaged line.
    """
    require_real(path, results)
    try:
        lines = read_text(path, TEXT_BYTES).splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    entries, runs = [], []
    earlier: dict[str, dict[str, Any]] = {}
    for number, text in enumerate(lines, 1):
        try:
            entry, run = _read(text, path, earlier)
        except (ValueError, KeyError, TypeError, RecursionError, UserError) as error:
            raise UserError(
                f"{path}:{number}: not a published trial: {error}: restore the file"
            ) from None
        entries.append(entry)
        runs.append(run)
    return Kept(tuple(entries), tuple(runs))


def _read(text: str, path: Path, earlier: dict[str, dict[str, Any]]) -> tuple[Entry, Run]:
    """Read a line with the earlier lines by their trials' keys, and add it to them."""
    line = parse(text)
    if isinstance(line, dict) and LIKE in line:
        if line[LIKE] not in earlier:
            raise ValueError(f"no earlier line has the trial {line[LIKE]}")
        line = changed(earlier[line[LIKE]], {k: v for k, v in line.items() if k != LIKE})
        if len(json.dumps(line)) > LINE_BYTES:  # a few bytes may stand for a long earlier line
            raise ValueError(f"its content has more than {LINE_BYTES:,} bytes")
    content = opened(line)
    trial, label = Trial.of_document(content["trial"]), str(content["label"])
    if trial.key in earlier:
        raise ValueError(f"an earlier line has the trial {trial.key}")
    earlier[trial.key] = line
    result = checked_result({**content["result"], "key": trial.key}, trial)
    return Entry(trial, label, trial.describe(label)), Run(trial, result, path)


def published_runs(results: Path) -> Iterator[Run]:
    """Yield the runs of every trials.jsonl under `results`, each trial once.

    Raises:
        UserError: naming a damaged file.
    """
    known: set[str] = set()
    for path in sorted(results.glob(f"*/*/{TRIALS}")):
        for run in read_trials(path, results).runs:
            if run.trial.key not in known:
                known.add(run.trial.key)
                yield run


def all_runs(results: Path) -> Scan:
    """Return the runs under `results`, and published runs of trials that have not run there.

    Raises:
        UserError: if a folder cannot be listed, or a trials.jsonl is damaged.
    """
    return scan(results).beside(published_runs(results))

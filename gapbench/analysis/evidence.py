"""The evidence that git keeps: results/<scale>/<ablation>/trials.jsonl, a completed trial a line.

A line holds the row's label, trial.json and what result.json tells of the trial, with a checksum.
Tables, answers and claims follow from it, and so does the trial, to be run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Kept:
    """What one trials.jsonl holds, line by line: trials as their ablation has them, and results."""

    entries: tuple[Entry, ...]
    runs: tuple[Run, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a trial, as `runs_frame` makes them."""
        found = {run.trial.key: run for run in self.runs}
        return runs_frame(self.entries, Scan(found, {}, ()))


def path_of(results: Path, scale: str, ablation: str) -> Path:
    """Return where the evidence of an ablation at a scale lies."""
    return results / scale / ablation / TRIALS


def write_trials(path: Path, entries: Iterable[Entry], runs: Sequence[Run]) -> None:
    """Write the trials of `entries` that have run, in their order.

    Raises:
        OSError: if the file cannot be written.
    """
    found = {run.trial.key: run for run in runs}
    kept = ((entry, found[entry.trial.key]) for entry in entries if entry.trial.key in found)
    lines = [
        {
            "label": entry.name,
            "trial": entry.trial.document(),
            "result": {name: value for name, value in run.result.items() if name != "key"},
        }
        for entry, run in kept
    ]
    texts = (json.dumps(sealed(line), separators=(",", ":")) for line in lines)
    write_text(path, "".join(f"{text}\n" for text in texts))


def read_trials(path: Path, results: Path) -> Kept:
    """Read what `write_trials` wrote.

    Args:
        path: the file.
        results: the results folder that it is in; no link leads out of it.

    Raises:
        UserError: naming the line that is damaged.
    """
    require_real(path, results)
    try:
        lines = read_text(path, TEXT_BYTES).splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    entries, runs = [], []
    for number, text in enumerate(lines, 1):
        try:
            entry, run = _line(text, path)
        except (ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(
                f"{path}:{number}: this is no published trial: {error}: restore the file"
            ) from None
        entries.append(entry)
        runs.append(run)
    return Kept(tuple(entries), tuple(runs))


def _line(text: str, path: Path) -> tuple[Entry, Run]:
    line = opened(parse(text))
    trial, label = Trial.of_document(line["trial"]), str(line["label"])
    result = checked_result({**line["result"], "key": trial.key}, trial)
    return Entry(trial, label, trial.describe(label)), Run(trial, result, path)


def published_runs(results: Path) -> Iterator[Run]:
    """Yield the runs of every trials.jsonl under `results`, each trial once.

    Raises:
        UserError: about one that is damaged.
    """
    known: set[str] = set()
    for path in sorted(results.glob(f"*/*/{TRIALS}")):
        for run in read_trials(path, results).runs:
            if run.trial.key not in known:
                known.add(run.trial.key)
                yield run


def all_runs(results: Path) -> Scan:
    """Return what has run under `results`, and what is published there of trials that have not.

    Raises:
        UserError: if a folder cannot be listed, or a trials.jsonl is damaged.
    """
    return scan(results).beside(published_runs(results))

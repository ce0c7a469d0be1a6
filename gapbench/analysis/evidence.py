"""The evidence in git: results/<scale>/<ablation>/trials.jsonl, one line per completed trial.

A line has the row's label, trial.json, the shareable part of result.json, and a checksum. Tables,
answers and claims follow from these lines, and a trial can be run again from its line.
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
    """Read a file that `write_trials` wrote.

    Args:
        path: the file.
        results: the results folder of the file; links out of this folder are refused.

    Raises:
        UserError: naming the damaged line.
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
                f"{path}:{number}: not a published trial: {error}: restore the file"
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

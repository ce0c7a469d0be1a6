"""Expected training times of trials, from completed trials of the same task."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

from gapbench.analysis.collect import Scan
from gapbench.spec.grid import Entry
from gapbench.spec.trials import Trial


def expected_seconds(entries: Iterable[Entry], found: Scan) -> dict[str, float]:
    """Return the expected seconds of trials by key, without trials of tasks that have never run.

    Methods differ little in the time of a machine-epoch, so the mean over all methods is used.
    """
    rates: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for run in found.runs.values():
        seconds, epochs = run.result.get("seconds"), run.result.get("epochs")
        if seconds and epochs:
            rate = rates[_work(run.trial)]
            rate[0] += seconds
            rate[1] += epochs
    known = ((entry.trial, rates.get(_work(entry.trial))) for entry in entries)
    return {
        trial.key: rate[0] / rate[1] * trial.plan.epochs
        for trial, rate in known
        if rate is not None
    }


def _work(trial: Trial) -> str:
    """Return the settings that decide most about the time of an epoch."""
    recipe = trial.recipe
    shares = [recipe.batch_size, recipe.cpu_threads, trial.ranks]
    return json.dumps([trial.task, trial.task_version, trial.task_options, *shares], sort_keys=True)

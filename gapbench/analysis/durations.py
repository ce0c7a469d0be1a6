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
    seconds: defaultdict[str, float] = defaultdict(float)
    epochs: defaultdict[str, float] = defaultdict(float)
    for run in found.runs.values():
        if run.result.get("seconds") and run.result.get("epochs"):
            seconds[_work(run.trial)] += run.result["seconds"]
            epochs[_work(run.trial)] += run.result["epochs"]
    known = ((entry.trial, _work(entry.trial)) for entry in entries)
    return {
        trial.key: seconds[work] / epochs[work] * trial.plan.epochs
        for trial, work in known
        if work in seconds
    }


def _work(trial: Trial) -> str:
    """Return the settings that decide most about the time of an epoch."""
    recipe = trial.recipe
    shares = [recipe.batch_size, recipe.cpu_threads, trial.ranks]
    return json.dumps([trial.task, trial.task_version, trial.task_options, *shares], sort_keys=True)

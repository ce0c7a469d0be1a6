"""Four tests on validation data of whether a small task is a valid proxy of the published tables.

A small task is valid only if it shows the known effects at scale: longer training helps, dense
training does not memorise its training set, pruning costs accuracy, and moving masks beat static
masks if both train long enough. Recipes are chosen on validation data, so these tests use
validation data and never the test split.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapbench.analysis.looks import ALPHA
from gapbench.analysis.records import COMPLETED, Record, is_number, settings_of
from gapbench.analysis.sequential import Welch, welch
from gapbench.plan.phases import UNSTRUCTURED
from gapbench.tasks.task import tasks

# times the loss on validation data; a training loss below it shows a memorised training set
LEAST_LOSS = 0.5
LONG = (12.0, 5.0)  # multiples of a task's own epochs: the longest that there is is taken


@dataclass(frozen=True)
class Check:
    """One of the four tests on one task.

    Attributes:
        asks: the question, for readers.
        sparsity: sparsity of the test, or None if the test is about dense training.
        difference: the difference that must be above 0; None if a row is missing.
        n: numbers of seeds of both sides.
    """

    task: str
    asks: str
    sparsity: float | None
    difference: Welch | None
    n: tuple[int, int]

    @property
    def passed(self) -> bool | None:
        """Whether the 95 % interval lies above 0; None if there are too few seeds."""
        if self.difference is None or self.difference.error in (0, math.inf):
            return None
        return self.difference.mean - self.difference.half_width(ALPHA) > 0


def checks(trials: Iterable[Record]) -> list[Check]:
    """Return the tests of every task, in the order of the trials, each at every sparsity.

    Args:
        trials: records as from `runs_frame`, of any ablations of one scale; a trial of two
            ablations counts once.
    """
    done = {trial["key"]: trial for trial in trials if trial["state"] == COMPLETED}
    names = dict.fromkeys(trial["task"] for trial in done.values())
    return [check for name in names for check in _of_task(list(done.values()), name)]


def _of_task(trials: Sequence[Record], name: str) -> Iterator[Check]:
    own = [t for t in trials if t["task"] == name]
    metric = tasks[name].metric
    sign = 1 if metric.higher_is_better else -1
    value = f"val/{metric.name}"

    def row(method: str, times: float | None = 1.0, **wanted: Any) -> dict[int, float]:
        """Return the values by seed of the first matching row, or of the longest dense row."""
        settings = {"method": method, "pattern": UNSTRUCTURED, **wanted}
        fitting = [
            trial
            for trial in own
            if times is None or trial["epochs"] == times * trial["recipe.epochs"]
            if is_number(trial.get(value)) and math.isfinite(trial[value])
            if all(trial.get(field, given) == given for field, given in settings.items())
        ]
        if times is None:
            fitting.sort(key=lambda trial: -trial["epochs"])
        known = settings_of(fitting[0]) if fitting else {}
        alike = (trial for trial in fitting if settings_of(trial) == known)
        return {trial["seed"]: sign * float(trial[value]) for trial in alike}

    dense = row("dense", None)
    yield Check(
        name,
        f"the training loss of dense stays above {LEAST_LOSS:g} of its validation loss",
        None,
        *_memorising(own),
    )
    rigl = {t["sparsity"] for t in own if (t["method"], t.get("pattern")) == ("rigl", UNSTRUCTURED)}
    for sparsity in sorted(rigl):
        place = {"sparsity": sparsity, "distribution": "uniform"}
        once = row("rigl", **place)
        for times in LONG:
            if longer := row("rigl", times, **place):
                asks = f"RigL {times:g}x is above RigL 1x"
                yield Check(name, asks, sparsity, *_difference(longer, once))
                break
        yield Check(name, "dense is above RigL 1x", sparsity, *_difference(dense, once))
        for times in (*LONG, 1.0):
            if static := row("static", times, **place):
                long = f" {times:g}x" if times > 1 else ""
                asks = f"RigL{long} is above static masks{long}"
                moving = row("rigl", times, **place)
                yield Check(name, asks, sparsity, *_difference(moving, static))
                break


def _memorising(trials: Sequence[Record]) -> tuple[Welch | None, tuple[int, int]]:
    """Return the last training loss of dense trials minus its lower limit.

    Both losses come from the same trial, so the differences of the seeds are one sample.
    """
    known = [t for t in trials if t["method"] == "dense" and is_number(t.get("train/loss"))]
    longest = max((t["epochs"] for t in known), default=0)
    above = [
        float(t["train/loss"]) - LEAST_LOSS * float(t["val/loss"])
        for t in known
        if t["epochs"] == longest and is_number(t.get("val/loss"))
    ]
    counts = (len(above), len(above))
    if len(above) < 2:
        return (Welch(above[0], math.inf, 1.0) if above else None), counts
    error = statistics.stdev(above) / math.sqrt(len(above))
    return Welch(statistics.mean(above), error, len(above) - 1.0), counts


def _difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[Welch | None, tuple[int, int]]:
    counts = (len(first), len(second))
    if not all(counts):
        return None, counts
    return welch(list(first.values()), list(second.values())), counts

"""Whether a proxy is in the regime of the published tables: four tests on validation data.

A small task counts only if it shows what is known at scale. Longer training helps, dense training
does not learn its training set by heart, pruning costs something, and masks that move beat masks
that do not, where training is long enough for both. Validation data choose recipes, so these tests
are on them and never on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapbench.analysis.looks import ALPHA
from gapbench.analysis.records import COMPLETED, Record, is_number
from gapbench.analysis.sequential import Welch, welch
from gapbench.plan.phases import UNSTRUCTURED
from gapbench.tasks.task import tasks

# of the loss on validation data; below it a training set was learned by heart
LEAST_LOSS = 0.5
LONG = (12.0, 5.0)  # multiples of a task's own epochs: the longest that there is is taken


@dataclass(frozen=True)
class Check:
    """One of the four tests on one task.

    Attributes:
        asks: what is asked, as people read it.
        sparsity: at which, or None where dense training is asked about.
        difference: what has to be above 0, positive being in favour; None where a row is missing.
        n: seeds of either side.
    """

    task: str
    asks: str
    sparsity: float | None
    difference: Welch | None
    n: tuple[int, int]

    @property
    def passed(self) -> bool | None:
        """Whether the 95 % interval lies above 0; None where there are too few seeds for one."""
        if self.difference is None or math.isinf(self.difference.error):
            return None
        return self.difference.mean - self.difference.half_width(ALPHA) > 0


def checks(trials: Iterable[Record]) -> list[Check]:
    """Return the tests of every task, in the order of the trials, each at every sparsity.

    Args:
        trials: records as `runs_frame` makes them, of any ablations of one scale; a trial of two
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
        settings = {"method": method, "pattern": UNSTRUCTURED, **wanted}
        return {
            trial["seed"]: sign * float(trial[value])
            for trial in own
            if times is None or trial["epochs"] == times * trial["recipe.epochs"]
            if is_number(trial.get(value)) and math.isfinite(trial[value])
            if all(trial.get(field, given) == given for field, given in settings.items())
        }

    dense = row("dense", None)
    yield Check(
        name,
        f"dense training keeps a loss of {LEAST_LOSS:g} of that on validation data",
        None,
        *_difference(*_losses(own)),
    )
    for sparsity in sorted({t["sparsity"] for t in own if t["method"] != "dense"}):
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


def _losses(trials: Sequence[Record]) -> tuple[dict[int, float], dict[int, float]]:
    """Return of dense trials the loss of the last epoch, and what it has to be above."""
    own = [t for t in trials if t["method"] == "dense" and is_number(t.get("train/loss"))]
    longest = max((t["epochs"] for t in own), default=0)
    taken = [t for t in own if t["epochs"] == longest]
    last = {t["seed"]: float(t["train/loss"]) for t in taken}
    return last, {t["seed"]: LEAST_LOSS * float(t["val/loss"]) for t in taken}


def _difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[Welch | None, tuple[int, int]]:
    counts = (len(first), len(second))
    if not all(counts):
        return None, counts
    return welch(list(first.values()), list(second.values())), counts

"""Results of an ablation: rows, columns and statistics of cells, from a frame of runs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gapbench.analysis import stats
from gapbench.analysis.layout import Layout, SectionError, check_names, value_name
from gapbench.analysis.published import Published, published_for
from gapbench.analysis.records import (
    COMPLETED,
    NOTHING,
    Record,
    differ,
    is_given,
    is_number,
    settings_of,
)
from gapbench.analysis.stats import Summary
from gapbench.sparsity.distributions import EMERGENT
from gapbench.spec.schema import AblationSpec
from gapbench.tasks.task import Metric, tasks

WORDS = {"global_magnitude": "global magnitude", "erk": "ERK"}
# the form of a field's value in the name of a row, for values that need explanation
FORMS = {
    "partitions": "κ = {}",
    "epochs": "{} epochs",
    "restart": "restart {}",
    "step_lr": "step lr {}",
}
NEAR = 0.01  # of a column's sparsity: learned ones are compared within it
# costs and properties of a trial, averaged over the seeds of a cell: column of the frame, words
COSTS = {
    "run/epochs": "machine-epochs",
    "run/wall_epochs": "wall-clock epochs",
    "cost/train_flops_ratio": "training FLOPs (× dense recipe)",
    "cost/inference_flops_ratio": "inference FLOPs (× dense)",
    "density/prunable": "density, prunable weights",
    "density/model": "density, whole model",
    "cost/mean_density": "mean density in training",
    "exploration/coverage": "coverage",
    "exploration/epochs": "machine-epochs to 99 % coverage",
    "exploration/iou": "IoU of masks before and after a change",
    "run/seconds": "seconds",
}


@dataclass(frozen=True)
class Cell:
    """The results of one row in one column.

    Attributes:
        values: value by seed, for seeds that have run and have neither diverged nor collapsed.
        diverged: seeds whose value is not finite, or whose training has collapsed.
        planned: number of planned seeds; 0 if the ablation has no such trial.
        summary: summary of the values; None if no seed has a finite value.
        costs: mean of each of `COSTS` over the seeds that have run.
        states: number of trials that have not completed, by state.
        published: the published value, or None.
        beside: summary of the metric on the test split, if the value is of the split heldout.
        loss: summary of the loss on the value's split, or None.
        reached: mean sparsity of the prunable weights if the method learns it, else None.
        trials: keys of the trials that have run.
    """

    values: Mapping[int, float]
    diverged: tuple[int, ...]
    planned: int
    summary: Summary | None
    costs: Mapping[str, float]
    states: Mapping[str, int]
    published: Published | None
    beside: Summary | None = None
    loss: Summary | None = None
    reached: float | None = None
    trials: tuple[str, ...] = ()

    @property
    def n_run(self) -> int:
        """Number of seeds that have run."""
        return len(self.values) + len(self.diverged)

    @property
    def by_seed(self) -> dict[int, float]:
        """The value of each seed that has run; NaN for a diverged seed."""
        return {**self.values, **dict.fromkeys(self.diverged, math.nan)}

    def stands_for(self, field: str, column: object) -> bool:
        """Say whether the cell counts in a column: a learned sparsity must be near the column's."""
        if self.reached is None or field != "sparsity" or not isinstance(column, float):
            return True
        return abs(self.reached - column) <= NEAR


@dataclass(frozen=True)
class Row:
    """One row: fields in words, settings of one trial, and a cell for each column.

    Attributes:
        name: one line with the fields in which rows of the table differ.
    """

    fields: tuple[str, ...]
    name: str
    settings: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @property
    def method(self) -> str:
        """The registered name of the method."""
        return str(self.settings["method"])


@dataclass(frozen=True)
class Results:
    """The results of one ablation on one task.

    Attributes:
        fields: names of the row fields.
        column: name of the field of the columns.
        columns: values of the column field.
        value: name of the value, as split/metric.
        repeated: whether dense rows are repeated in every column.
        commits: number of different commits of the completed trials.
        lacking: number of completed trials without a value on heldout, if other trials have one.
    """

    ablation: str
    question: str
    task: str
    metric: Metric
    value: str
    fields: tuple[str, ...]
    column: str
    columns: tuple[object, ...]
    rows: tuple[Row, ...]
    repeated: bool
    commits: int
    lacking: int = 0

    def cells(self) -> Iterator[tuple[Row, object, Cell]]:
        """Yield row, column and cell for every cell with planned trials."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if cell.planned:
                    yield row, column, cell


def results_of(frame: pd.DataFrame, spec: AblationSpec) -> list[Results]:
    """Return the results of every task in `frame`; tasks are never compared with each other.

    Args:
        frame: the frame from `runs_frame`, with one row per trial, run or not.
        spec: the ablation; its report section defines rows and columns.

    Raises:
        SectionError: if a field or the value is unknown, or a cell would mix configurations.
    """
    trials = frame.to_dict("records")
    check_names(trials, frame.columns, spec)
    names = dict.fromkeys(trial["task"] for trial in trials)
    return [_of_task([t for t in trials if t["task"] == name], name, spec) for name in names]


def _of_task(trials: Sequence[Record], task: str, spec: AblationSpec) -> Results:
    asked, metric = value_name(task, spec.report.value), metric_of(task, spec.report.value)
    done = [trial for trial in trials if trial["state"] == COMPLETED]
    _check_measured(done, asked, spec)
    value = primary(asked, done)
    heldout = primary(asked, [t for t in done if is_number(t.get(f"heldout/{metric.name}"))])
    lacking = sum(not is_number(trial.get(heldout)) for trial in done)
    layout = Layout.of(trials, spec)
    names = names_of(layout.rows, spec.report.rows)
    varying = {method: _varying(trials, method) for method in {t["method"] for t in trials}}
    rows = []
    for fields, columns in layout.rows.items():
        settings = settings_of(layout.first[fields])
        known = varying[settings["method"]]
        cells = tuple(_cell(inside, (value, asked), metric, spec.name, known) for inside in columns)
        rows.append(Row(fields, names[fields], settings, cells))
    return Results(
        ablation=spec.name,
        question=spec.question,
        task=task,
        metric=metric,
        value=value,
        fields=spec.report.rows,
        column=spec.report.columns,
        columns=layout.columns,
        rows=tuple(rows),
        repeated=layout.repeated and any(row.method == "dense" for row in rows),
        commits=len(set(filter(is_given, (t.get("environment/git_commit") for t in done)))),
        lacking=lacking,
    )


def names_of(rows: Collection[tuple[str, ...]], heads: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Return a short name for every row: the first field, and the fields in which rows differ.

    Epochs are left out if no two rows differ in epochs alone.
    """
    differing = [i for i, values in enumerate(zip(*rows, strict=True)) if len(set(values)) > 1]
    # "RigL 5x" says it shorter
    without = [i for i in differing if heads[i] != "epochs"]
    if len({tuple(fields[i] for i in {0, *without}) for fields in rows}) == len(rows):
        differing = without
    names = {}
    for fields in rows:
        shown = [i for i in sorted({0, *differing}) if fields[i] not in (NOTHING, "dense")]
        words = [(FORMS.get(heads[i], "{}"), fields[i]) for i in shown]
        names[fields] = ", ".join(form.format(WORDS.get(word, word)) for form, word in words)
    if len(set(names.values())) < len(names):  # what was left out told two rows apart
        return {fields: ", ".join(fields) for fields in rows}
    return names


def _check_measured(done: Sequence[Record], value: str, spec: AblationSpec) -> None:
    if done and not any(is_number(trial.get(value)) for trial in done):
        metrics = ", ".join(name for name in done[0] if name.startswith(("test/", "val/")))
        reason = f"no trial has {value!r}: valid: {metrics}"
        raise SectionError(spec, ("report", "value"), reason)


def metric_of(task: str, value: str) -> Metric:
    """Return the metric of a value; for a metric unknown to the task, higher is better."""
    own = tasks[task].metric if task in tasks else Metric(value.rpartition("/")[2])
    name = value_name(task, value).rpartition("/")[2]
    return own if name == own.name else Metric(name, higher_is_better=name != "loss", unit="")


def seed_correlation(results: Results, least: int = 6) -> tuple[float, int] | None:
    """Return the mean correlation of two rows' values over seeds, and the number of pairs of rows.

    Args:
        results: results of one task.
        least: minimum number of seeds that two rows must share.
    """
    found = []
    for index in range(len(results.columns)):
        own = [row.cells[index].values for row in results.rows if row.cells[index].planned]
        for one, other in itertools.combinations(own, 2):
            seeds = sorted(one.keys() & other.keys())
            pair = [[row[seed] for seed in seeds] for row in (one, other)]
            if len(seeds) >= least and all(len(set(row)) > 1 for row in pair):
                found.append(statistics.correlation(*pair))
    return (statistics.mean(found), len(found)) if found else None


def primary(asked: str, done: Sequence[Record]) -> str:
    """Return the frame's column for the answers to claims: heldout if all trials have this split.

    The split heldout has labelled images outside training, validation and test. The requested value
    on the test split is then shown beside it.
    """
    split, _, name = asked.rpartition("/")
    heldout = f"heldout/{name}"
    there = done and all(is_number(trial.get(heldout)) for trial in done)
    return heldout if there and split == "test" else asked


def _varying(trials: Sequence[Record], method: str) -> tuple[str, ...]:
    own = [trial for trial in trials if trial["method"] == method]
    first = settings_of(own[0])
    return tuple(n for n, value in first.items() if any(differ(value, t[n]) for t in own))


def _cell(
    trials: Sequence[Record],
    names: tuple[str, str],
    metric: Metric,
    ablation: str,
    varying: Sequence[str],
) -> Cell:
    value, asked = names
    done = [t for t in trials if t["state"] == COMPLETED and is_number(t.get(value))]
    least = -math.inf if metric.collapsed is None else metric.collapsed
    loss = f"{value.rpartition('/')[0]}/loss"
    learned = [
        trial
        for trial in done
        if math.isfinite(trial[value]) and trial[value] >= least
        if not is_number(trial.get(loss)) or math.isfinite(trial[loss])
    ]
    diverged = tuple(t["seed"] for t in done if t not in learned)
    states: dict[str, int] = {}
    for trial in trials:
        if trial not in done:
            states[trial["state"]] = states.get(trial["state"], 0) + 1
    costs = {}
    for name in COSTS:
        given = [t[name] for t in done if is_given(t.get(name)) and is_number(t[name])]
        if given:
            costs[name] = sum(map(float, given)) / len(given)
    emergent = any(trial["distribution"] == EMERGENT for trial in trials)
    density = costs.get("density/prunable")
    return Cell(
        values={trial["seed"]: float(trial[value]) for trial in learned},
        diverged=diverged,
        planned=len(trials),
        summary=_summary(learned, value),
        costs=costs,
        states=states,
        published=published_for(trials[0], metric.name, ablation, varying) if trials else None,
        beside=None if asked == value else _summary(learned, asked),
        loss=_summary(learned, loss),
        reached=1 - density if emergent and density is not None else None,
        trials=tuple(str(trial["key"]) for trial in done),
    )


def _summary(trials: Sequence[Record], name: str) -> Summary | None:
    """Return the summary of a column if all trials have a finite number in it, else None."""
    given = [trial.get(name) for trial in trials]
    values = [float(value) for value in given if value is not None and is_number(value)]
    if not values or len(values) < len(given) or not all(map(math.isfinite, values)):
        return None
    return stats.summary(values)

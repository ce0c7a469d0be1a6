"""From runs.csv and a report section to results: every row and column with its statistics."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gapbench.errors import UserError, choose
from gapbench.experiments.loading import Keys, dotted
from gapbench.experiments.schema import AblationSpec
from gapbench.report import stats
from gapbench.report.collect import COMPLETED, NOTHING, is_given, text_of
from gapbench.report.published import Published, published_for
from gapbench.report.stats import Summary
from gapbench.tasks.task import Metric, Split, tasks

SPLITS: tuple[Split, ...] = ("test", "val")
WORDS = {"global_magnitude": "global magnitude", "erk": "ERK"}
# what a trial costs and is, averaged over the seeds of a cell: column of runs.csv, words
COSTS = {
    "run/epochs": "machine-epochs",
    "run/wall_epochs": "wall-clock epochs",
    "cost/train_flops_ratio": "training FLOPs (× dense recipe)",
    "cost/inference_flops_ratio": "inference FLOPs (× dense)",
    "density/prunable": "density, prunable weights",
    "density/model": "density, whole model",
    "cost/mean_density": "mean density in training",
    "exploration/coverage": "coverage",
    "run/seconds": "seconds",
}


class SectionError(UserError):
    """The claim or the report section of an ablation does not fit its trials.

    Attributes:
        keys: place in the ablation's file.
        reason: what is wrong there.
    """

    def __init__(self, spec: AblationSpec, keys: Keys, reason: str) -> None:
        super().__init__(f"ablation {spec.name}: {dotted(keys)}: {reason}")
        self.keys = keys
        self.reason = reason


@dataclass(frozen=True)
class Cell:
    """What is known of one row in one column.

    Attributes:
        values: value of each seed that has run, finite ones only.
        diverged: seeds whose value is not finite.
        planned: number of seeds asked for; 0 where the ablation has no such trial.
        summary: None where no seed has a finite value.
        costs: mean of each of `COSTS` over the seeds that have run.
        states: how many trials that have not completed are in which state.
    """

    values: Mapping[int, float]
    diverged: tuple[int, ...]
    planned: int
    summary: Summary | None
    costs: Mapping[str, float]
    states: Mapping[str, int]
    published: Published | None


@dataclass(frozen=True)
class Row:
    """One row: its fields in words, its settings (of one trial), and a cell for each column.

    Attributes:
        name: the fields in which rows of the table differ, as one line.
    """

    fields: tuple[str, ...]
    name: str
    settings: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @property
    def method(self) -> str:
        """The method's registry name."""
        return str(self.settings["method"])


@dataclass(frozen=True)
class Results:
    """The results of one ablation on one task.

    Attributes:
        fields: names of the row fields.
        column: name of the field that is spread over the columns.
        columns: its values.
        value: name of the value, as split/metric.
        repeated: whether dense rows are repeated in every column.
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

    def cells(self) -> Iterator[tuple[Row, object, Cell]]:
        """Yield every cell of planned trials, with its row and column."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if cell.planned:
                    yield row, column, cell


def results_of(frame: pd.DataFrame, spec: AblationSpec) -> list[Results]:
    """Return the results of every task in `frame`; tasks are never compared with each other.

    Args:
        frame: what `read_runs` returns: one row a trial, run or not.
        spec: the ablation; its report section says what the rows and columns are.

    Raises:
        SectionError: if a field or the value is unknown, or a cell would mix configurations.
    """
    _check_fields(frame, spec)
    names = list(dict.fromkeys(frame["task"]))
    for name in names:
        _check_value(name, spec)
    return [_of_task(frame[frame["task"] == name], name, spec) for name in names]


def _check_fields(frame: pd.DataFrame, spec: AblationSpec) -> None:
    report, claim = spec.report, spec.claim
    used: list[tuple[Keys, Iterable[str]]] = [
        (("report", "rows"), report.rows),
        (("report", "columns"), (report.columns,)),
        (("report", "baseline"), report.baseline),
    ]
    if claim is not None:
        parts = {"better": claim.better, "than": claim.than, "at": claim.at}
        used += [(("claim", name), fields) for name, fields in parts.items()]
    settings = [name for name in frame.columns if "/" not in name]
    for keys, names in used:
        for name in names:
            if name not in frame.columns:
                raise SectionError(spec, keys, choose("field", name, settings))


def _check_value(task: str, spec: AblationSpec) -> None:
    """Check that a task can have the value; what its finished trials have is seen later."""
    value = value_name(task, spec.report.value)
    split, _, name = value.rpartition("/")
    metrics = ("loss",) if task not in tasks else (tasks[task].metric.name, "loss")
    # a task may measure more than its metric, under longer names: bleu_lowercase
    if split not in SPLITS or not (name in metrics or name.startswith(f"{metrics[0]}_")):
        valid = [f"{split}/{metric}" for split in SPLITS for metric in metrics]
        raise SectionError(spec, ("report", "value"), choose("value", value, valid))


def _of_task(frame: pd.DataFrame, task: str, spec: AblationSpec) -> Results:
    report = spec.report
    value, metric = value_name(task, report.value), metric_of(task, report.value)
    trials: list[dict[str, Any]] = frame.to_dict("records")
    _check_measured(trials, value, spec)
    repeated = report.columns == "sparsity" and any(t["method"] != "dense" for t in trials)
    columns = _columns(trials, report.columns, repeated)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(tuple(text_of(trial[f]) for f in report.rows), []).append(trial)
    rows = []
    names = _names(groups)
    varying = {method: _varying(trials, method) for method in {t["method"] for t in trials}}
    for fields, members in groups.items():
        everywhere = repeated and members[0]["method"] == "dense"
        cells = []
        for column in columns:
            inside = [t for t in members if everywhere or t[report.columns] == column]
            _check_equal(inside, spec, fields)
            cells.append(_cell(inside, value, metric, spec.name, varying[members[0]["method"]]))
        rows.append(Row(fields, names[fields], settings_of(members[0]), tuple(cells)))
    return Results(
        ablation=spec.name,
        question=spec.question,
        task=task,
        metric=metric,
        value=value,
        fields=report.rows,
        column=report.columns,
        columns=columns,
        rows=tuple(rows),
        repeated=repeated and any(row.method == "dense" for row in rows),
    )


def _names(rows: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return a short name for every row: its first field, and those in which rows differ."""
    differing = [i for i, values in enumerate(zip(*rows, strict=True)) if len(set(values)) > 1]
    names = {}
    for fields in rows:
        words = [fields[i] for i in sorted({0, *differing}) if fields[i] not in (NOTHING, "dense")]
        names[fields] = ", ".join(WORDS.get(word, word) for word in words)
    if len(set(names.values())) < len(names):  # what was left out told two rows apart
        return {fields: ", ".join(fields) for fields in rows}
    return names


def _check_measured(trials: Sequence[Mapping[str, Any]], value: str, spec: AblationSpec) -> None:
    done = [trial for trial in trials if trial["state"] == COMPLETED]
    if done and not any(is_number(trial, value) for trial in done):
        metrics = ", ".join(name for name in done[0] if name.startswith(("test/", "val/")))
        reason = f"no trial has {value!r}: valid: {metrics}"
        raise SectionError(spec, ("report", "value"), reason)


def metric_of(task: str, value: str) -> Metric:
    """Return the metric that a value is of; one that a task does not know is better when high."""
    own = tasks[task].metric if task in tasks else Metric(value.rpartition("/")[2])
    name = value_name(task, value).rpartition("/")[2]
    return own if name == own.name else Metric(name, higher_is_better=name != "loss", unit="")


def value_name(task: str, value: str) -> str:
    """Return the value's column for a task: the split as asked, and its own main metric.

    One ablation may hold tasks that are judged by different metrics: "test/accuracy" is "test/bleu"
    for translation.
    """
    split, _, name = value.rpartition("/")
    main = {cls.metric.name for cls in (tasks[known] for known in tasks)}
    if task in tasks and name in main:
        return f"{split}/{tasks[task].metric.name}"
    return value


def _columns(trials: Sequence[Mapping[str, Any]], field: str, repeated: bool) -> tuple[object, ...]:
    values = dict.fromkeys(t[field] for t in trials if not (repeated and t["method"] == "dense"))
    numbers = [v for v in values if isinstance(v, (int, float)) and is_given(v)]
    return tuple(sorted(numbers)) + tuple(v for v in values if v not in numbers)


def settings_of(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a trial, without what was measured and without the seed."""
    skipped = ("key", "state", "seed")
    return {name: v for name, v in trial.items() if "/" not in name and name not in skipped}


def _check_equal(
    trials: Sequence[Mapping[str, Any]], spec: AblationSpec, fields: Sequence[str]
) -> None:
    """A cell holds seeds of one configuration, or its mean is of nothing."""
    first = settings_of(trials[0]) if trials else {}
    for trial in trials[1:]:
        for name, value in settings_of(trial).items():
            if text_of(value) != text_of(first[name]):
                reason = (
                    f"the trials of row {', '.join(fields)} differ in {name} "
                    f"({text_of(first[name])}, {text_of(value)}): add it to rows"
                )
                raise SectionError(spec, ("report", "rows"), reason)


def _varying(trials: Sequence[Mapping[str, Any]], method: str) -> tuple[str, ...]:
    seen: dict[str, set[str]] = {}
    for trial in trials:
        if trial["method"] == method:
            for name, value in settings_of(trial).items():
                seen.setdefault(name, set()).add(text_of(value))
    return tuple(name for name, values in seen.items() if len(values) > 1)


def _cell(
    trials: Sequence[Mapping[str, Any]],
    value: str,
    metric: Metric,
    ablation: str,
    varying: Sequence[str],
) -> Cell:
    done = [trial for trial in trials if trial["state"] == COMPLETED and is_number(trial, value)]
    values = {t["seed"]: float(t[value]) for t in done if math.isfinite(t[value])}
    diverged = tuple(t["seed"] for t in done if not math.isfinite(t[value]))
    states: dict[str, int] = {}
    for trial in trials:
        if trial not in done:
            states[trial["state"]] = states.get(trial["state"], 0) + 1
    costs = {}
    for name in COSTS:
        numbers = [float(t[name]) for t in done if is_given(t.get(name))]
        if numbers:
            costs[name] = sum(numbers) / len(numbers)
    return Cell(
        values=values,
        diverged=diverged,
        planned=len(trials),
        summary=stats.summary(list(values.values())) if values else None,
        costs=costs,
        states=states,
        published=published_for(trials[0], metric.name, ablation, varying) if trials else None,
    )


def is_number(trial: Mapping[str, Any], name: str) -> bool:
    """Say whether a trial has a number under `name`; NaN is one, the mark of a diverged run."""
    value = trial.get(name)
    return isinstance(value, (int, float)) and not isinstance(value, bool)

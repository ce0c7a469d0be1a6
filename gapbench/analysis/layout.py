"""The layout of a report: the rows, columns and cells that an ablation's trials make.

The layout is known before any trial has run, and needs no package for drawing or statistics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapbench.analysis.records import Record, differ, is_given, records_of, settings_of, text_of
from gapbench.errors import UserError, choose
from gapbench.methods.method import methods
from gapbench.sparsity.distributions import distributions
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry
from gapbench.spec.loading import Keys, dotted
from gapbench.spec.schema import AblationSpec
from gapbench.tasks.task import Split, tasks

SPLITS: tuple[Split, ...] = ("test", "val")


class SectionError(UserError):
    """A claim or the report section of an ablation does not match the ablation's trials.

    Attributes:
        keys: position in the ablation's file.
        reason: description of the error.
    """

    def __init__(self, spec: AblationSpec, keys: Keys, reason: str) -> None:
        super().__init__(f"ablation {spec.name}: {dotted(keys)}: {reason}")
        self.keys = keys
        self.reason = reason


def require_section(ablation: Ablation, entries: Sequence[Entry]) -> None:
    """Check that a report of these trials can be made, before any trial has run.

    Raises:
        UserError: naming file, line and key of the report section or of a claim.
    """
    try:
        trials = records_of(entries)
        check_names(trials, trials[0], ablation.spec)
        for task in dict.fromkeys(trial["task"] for trial in trials):
            Layout.of([trial for trial in trials if trial["task"] == task], ablation.spec)
    except SectionError as error:
        raise ablation.document.problem(error.keys, error.reason) from None


def check_names(trials: Sequence[Record], names: Collection[str], spec: AblationSpec) -> None:
    """Check that the fields of the report section exist, and that the tasks can have its value.

    Args:
        trials: trials of any tasks.
        names: names of all known fields of the trials.
        spec: the ablation.

    Raises:
        SectionError: naming the key in the section, or in a claim.
    """
    report = spec.report
    used: list[tuple[Keys, Iterable[str]]] = [
        (("report", "rows"), report.rows),
        (("report", "columns"), (report.columns,)),
        (("report", "baseline"), report.baseline),
    ]
    for number, claim in enumerate(spec.claims):
        parts = {"better": claim.better, "than": claim.than, "at": claim.at}
        used += [(("claims", number, name), fields) for name, fields in parts.items()]
    settings = [name for name in names if "/" not in name]
    for keys, fields in used:
        for field in fields:
            if field not in names:
                raise SectionError(spec, keys, choose("field", field, settings))
        if isinstance(fields, Mapping):
            _check_registered(spec, keys, fields)
    for task in dict.fromkeys(trial["task"] for trial in trials):
        _check_value(task, spec)


def _check_registered(spec: AblationSpec, keys: Keys, fields: Mapping[str, Any]) -> None:
    """Check that named methods and distributions exist; matching rows may be missing at a scale."""
    for field, known in (("method", methods), ("distribution", distributions)):
        given = fields.get(field, [])
        for name in given if isinstance(given, list) else [given]:
            if name not in known and name != "dense":
                raise SectionError(spec, (*keys, field), choose(field, str(name), known))


def _check_value(task: str, spec: AblationSpec) -> None:
    """Check that a task can have the value; values of finished trials are checked later."""
    value = value_name(task, spec.report.value)
    split, _, name = value.rpartition("/")
    metrics = ("loss",) if task not in tasks else (tasks[task].metric.name, "loss")
    # a task may measure more than its metric, under longer names: bleu_lowercase
    if split not in SPLITS or not (name in metrics or name.startswith(f"{metrics[0]}_")):
        valid = [f"{split}/{metric}" for split in SPLITS for metric in metrics]
        raise SectionError(spec, ("report", "value"), choose("value", value, valid))


def value_name(task: str, value: str) -> str:
    """Return the value's column for a task: the requested split, and the task's own main metric.

    One ablation may have tasks with different metrics: "test/accuracy" becomes "test/bleu" for
    translation.
    """
    split, _, name = value.rpartition("/")
    main = {cls.metric.name for cls in (tasks[known] for known in tasks)}
    if task in tasks and name in main:
        return f"{split}/{tasks[task].metric.name}"
    return value


@dataclass(frozen=True)
class Layout:
    """The positions of one task's trials in the table.

    Attributes:
        columns: values of the column field.
        repeated: whether dense rows are repeated in every column.
        rows: a row's trials in every column, by the row's fields in words.
        first: a row's first trial, by the row's fields in words.
    """

    columns: tuple[object, ...]
    repeated: bool
    rows: Mapping[tuple[str, ...], tuple[Sequence[Record], ...]]
    first: Mapping[tuple[str, ...], Record]

    @classmethod
    def of(cls, trials: Sequence[Record], spec: AblationSpec) -> Layout:
        """Return the layout of the trials of one task.

        Raises:
            SectionError: if a cell would mix configurations.
        """
        report = spec.report
        repeated = report.columns == "sparsity" and any(t["method"] != "dense" for t in trials)
        columns = _columns(trials, report.columns, repeated)
        groups: dict[tuple[str, ...], list[Record]] = {}
        for trial in trials:
            groups.setdefault(tuple(text_of(trial[f]) for f in report.rows), []).append(trial)
        rows = {}
        for fields, members in groups.items():
            everywhere = repeated and members[0]["method"] == "dense"
            rows[fields] = tuple(
                members if everywhere else [t for t in members if t[report.columns] == column]
                for column in columns
            )
            for inside in rows[fields]:
                _check_equal(inside, spec, fields)
        return cls(columns, repeated, rows, {fields: own[0] for fields, own in groups.items()})


def _columns(trials: Sequence[Record], field: str, repeated: bool) -> tuple[object, ...]:
    values = dict.fromkeys(t[field] for t in trials if not (repeated and t["method"] == "dense"))
    numbers = [v for v in values if isinstance(v, (int, float)) and is_given(v)]
    return tuple(sorted(numbers)) + tuple(v for v in values if v not in numbers)


def _check_equal(trials: Sequence[Record], spec: AblationSpec, fields: Sequence[str]) -> None:
    """Check that the trials of a cell differ in their seeds only."""
    first = settings_of(trials[0]) if trials else {}
    for trial in trials[1:]:
        for name, value in first.items():
            if differ(value, trial[name]):
                reason = (
                    f"the trials of row {', '.join(fields)} differ in {name} "
                    f"({text_of(value)}, {text_of(trial[name])}): add {name} to rows"
                )
                raise SectionError(spec, ("report", "rows"), reason)

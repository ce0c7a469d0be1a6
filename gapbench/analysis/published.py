"""Numbers from papers, which have their own column beside measured values and enter no mean."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from gapbench.analysis.records import alternatives, is_given
from gapbench.methods.method import methods, options_model
from gapbench.plan.phases import UNSTRUCTURED
from gapbench.spec.schema import Claim
from gapbench.tasks.task import tasks

SHARED = ("method", "distribution", "sparsity", "partitions", "strategy", "multiplier")
# settings that a published line states; in any other, a trial must be at its method's default
STATED = (*SHARED, "epochs")
# settings that follow from the stated ones or from the scale, or name things
FOLLOWING = ("label", "seed", "task", "first_layer", "pattern", "patterns", "partition_rule",
             "step_epochs", "steps", "rounds", "dense_epochs", "phase_epochs", "warmup_epochs",
             "fine_tune_epochs")  # fmt: skip
PAPER = "imagenet"
RECIPE = ("recipe.", "task_options.")  # no line states these: it goes with every recipe of a row


@dataclass(frozen=True)
class Published:
    """One published value.

    Attributes:
        table: ablation of the value, or paper of the value.
        epochs: total machine-epochs as stated; "" if the source does not state them.
        value: the value as printed.
        source: paper or page of the value.
    """

    table: str
    task: str
    method: str
    distribution: str
    sparsity: float
    partitions: int | None
    strategy: str | None
    multiplier: int | None
    epochs: str
    metric: str
    value: str
    source: str

    @property
    def label(self) -> str:
        """The method's label, with a multiple of the task's own epochs as in "RigL 5x"."""
        times = f" {self.multiplier}x" if self.multiplier not in (None, 1) else ""
        return methods[self.method].label + times

    @property
    def row(self) -> tuple[object, ...]:
        """What the line states of its row; sources print one row with different values."""
        return tuple(getattr(self, name) for name in SHARED)


@cache
def published() -> tuple[Published, ...]:
    """Return every line of published.csv; an empty cell is a setting that the source lacks."""
    text = resources.files("gapbench.analysis").joinpath("published.csv").read_text("utf-8")
    read: dict[str, Callable[[str], Any]] = {
        "sparsity": float,
        "partitions": lambda told: int(told) if told else None,
        "strategy": lambda told: told or None,
        "multiplier": lambda told: int(told) if told else None,
    }
    return tuple(
        Published(**{one.name: read.get(one.name, str)(row[one.name]) for one in fields(Published)})
        for row in csv.DictReader(text.splitlines())
    )


def published_times(task: str, method: str, times: float) -> str:
    """Return a method's training lengths in published tables, in multiples of RigL's 100 epochs.

    For tasks with ImageNet's metric, these are the tables of ImageNet. The result is "" for other
    tasks, and for methods in no table. If a table has the length `times`, only this is returned.
    """
    if task not in tasks or tasks[task].metric.name != tasks[PAPER].metric.name:
        return ""
    stated = [line.epochs for line in published() if (line.task, line.method) == (PAPER, method)]
    known = sorted({float(part) / 100 for epochs in stated for part in epochs.split("/") if part})
    known = [times] if times in known else known
    return "/".join(f"{each:g}" for each in known)


def published_for(
    trial: Mapping[str, Any], metric: str, ablation: str, varying: Sequence[str]
) -> Published | None:
    """Return the published value that a trial repeats, on the paper's task or a smaller task.

    On the paper's own task the epochs must equal the stated epochs, if any. On a smaller task, a
    proxy, the stated epochs must match only if the table compares epochs. A stated multiple of the
    task's own epochs must match on every task.

    Args:
        trial: settings, as a row of runs.csv.
        metric: name of the metric without the split, such as "accuracy".
        ablation: name of the ablation, whose own table is searched before other tables.
        varying: settings in which trials of one method differ within the table.
    """
    found = [line for line in published() if line.metric == metric and _fits(line, trial, varying)]
    return min(found, key=lambda line: line.table != ablation, default=None)


def _fits(line: Published, trial: Mapping[str, Any], varying: Sequence[str]) -> bool:
    known = dict(trial)
    if known["method"] == "dsd":
        known.update(method="c_gap", partitions=1, strategy="cyclic")
    if known.get("pattern", UNSTRUCTURED) != UNSTRUCTURED:  # no line is of another
        return False
    if (line.method, line.distribution) != (known["method"], known["distribution"]):
        return False
    if abs(line.sparsity - known["sparsity"]) > 1e-9:
        return False
    for name in ("partitions", "strategy"):
        stated, own = getattr(line, name), known.get(name)
        if stated is not None and is_given(own) and stated != own:
            return False
    if line.multiplier is not None and known["epochs"] != line.multiplier * known["recipe.epochs"]:
        return False
    counted = line.task == trial["task"] or ("epochs" in varying and line.multiplier is None)
    if counted and line.epochs and str(int(known["epochs"])) not in line.epochs.split("/"):
        return False
    others = (name for name in varying if name not in (*STATED, *FOLLOWING))
    return all(name.startswith(RECIPE) or _at_default(trial, name) for name in others)


def _at_default(trial: Mapping[str, Any], name: str) -> bool:
    """Say whether an option has its default; other settings have no default shared by papers."""
    if not is_given(trial.get(name)):
        return True
    method = trial["method"]
    fields = options_model(method).model_fields if method in methods else {}
    return name in fields and fields[name].default == trial[name]


# -- pairs of published values ---------------------------------------------------------------------


def published_pairs(claim: Claim) -> list[tuple[Published, Published]]:
    """Return pairs of published values of the rows of a claim, if one table has both values.

    Two lines form a pair if they agree in all stated settings that the claim does not name. A dense
    line must agree in the task only.
    """
    better, than = {**claim.at, **claim.better}, {**claim.at, **claim.than}
    named = {"multiplier" if name == "epochs" else name for name in {*better, *than}}
    return [
        (one, other)
        for one in published()
        for other in published()
        if _states(one, better) and _states(other, than) and one is not other
        if (one.table, one.task, one.metric) == (other.table, other.task, other.metric)
        if other.method == "dense"
        or all(
            mine == theirs or mine is None or theirs is None
            for name, mine, theirs in zip(SHARED, one.row, other.row, strict=True)
            if name not in named
        )
    ]


def _states(line: Published, fields: Mapping[str, Any]) -> bool:
    for name, value in fields.items():
        if name == "epochs" and f"{line.multiplier}x" not in alternatives(value):
            return False
        if name in SHARED and getattr(line, name) not in alternatives(value):
            return False
    return True

"""Histories of runs as frames: curves over epochs, mask changes, and final layers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ValidationError

from gapbench.analysis.collect import LeftOut, Run
from gapbench.analysis.records import is_number
from gapbench.base.documents import TEXT_BYTES, open_plain, parse
from gapbench.runs.documents import LINES

KINDS = tuple(LINES)
CURVE = ("epoch", "role", "coverage")
CHANGE = ("epoch", "event", "mask_error", "iou", "before", "after")
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Histories:
    """The histories of some runs; the column `key` of each frame names the trial.

    Attributes:
        curves: one row per epoch, with metrics as split/name and the plan's role in the epoch.
        changes: one row per mask change; iou, before and after are mappings or None.
        layers: one row per layer of the finished model, with density and numel.
        left_out: lines of the wanted kinds that could not be read.
    """

    curves: pd.DataFrame
    changes: pd.DataFrame
    layers: pd.DataFrame
    left_out: tuple[LeftOut, ...]


def read_histories(
    runs: Iterable[Run], metrics: Sequence[str], kinds: Collection[str] = KINDS
) -> Histories:
    """Read the history of every run.

    Args:
        runs: completed runs.
        metrics: names of the metrics to take from epoch lines, such as "val/accuracy".
        kinds: wanted kinds of lines; the frames of other kinds stay empty.
    """
    curves: Columns = {name: [] for name in ("key", *CURVE, *metrics)}
    changes: Columns = {name: [] for name in ("key", *CHANGE)}
    layers: Columns = {name: [] for name in ("key", "layer", "density", "numel")}
    left_out = []
    for run in runs:
        key = run.trial.key
        _add_layers(layers, key, run.result)
        lines, broken = read_lines(run, kinds) if kinds else ([], None)
        if broken:
            left_out.append(LeftOut(f"runs/{key}/history.jsonl", broken))
        for into, kind in ((curves, "epoch"), (changes, "change")):
            chosen = [line for line in lines if line["kind"] == kind]
            if kind == "epoch":
                role = run.trial.plan.role
                chosen = [{**line, "role": role(line["epoch"])} for line in chosen]
            into["key"] += [key] * len(chosen)
            for name in list(into)[1:]:
                into[name] += [line.get(name) for line in chosen]
    return Histories(
        curves=_numbers(curves, {*CURVE, *metrics} - {"role"}),
        changes=_numbers(changes, {"epoch", "mask_error"}),
        layers=pd.DataFrame(layers),
        left_out=tuple(left_out),
    )


def _numbers(columns: Columns, numeric: Collection[str]) -> pd.DataFrame:
    """Return a frame in which numeric columns have numbers, or NaN for other values."""
    frame = pd.DataFrame(columns)
    for name in numeric:
        told = [value if is_number(value) else None for value in columns[name]]
        frame[name] = pd.Series(told, dtype=float)
    return frame


def read_lines(run: Run, kinds: Collection[str] = KINDS) -> tuple[list[dict[str, Any]], str | None]:
    """Return a run's history lines of the wanted kinds, and a message about unreadable lines.

    Lines that start like lines of other kinds are not parsed, since parsing is most of the work.
    """
    if run.folder is None:
        return [], None  # evidence has none
    try:
        with open_plain(run.folder.history, TEXT_BYTES) as file:
            content = file.read()
        text = content.decode()
    except FileNotFoundError:
        return [], "missing"
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return [], "cannot be read"
    digest = run.result.get("history_sha256")
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        return [], "the checksum differs: the file has changed since the trial wrote it"
    skipped = tuple(f'{{"kind":"{kind}"' for kind in KINDS if kind not in kinds)
    every = text.splitlines()
    lines = [line for line in every if not line.startswith(skipped)]
    try:
        values = parse(f"[{','.join(lines)}]")  # one call is faster than many
    except ValueError:
        values = [_line(line) for line in lines]
    whole = [value for value in values if _is_line(value)]
    wrong = len(values) - len(whole)
    wanted = [value for value in whole if value["kind"] in kinds]
    return wanted, f"{wrong} of {len(every)} lines are damaged" if wrong else None


def _line(text: str) -> object:
    try:
        return parse(text)
    except ValueError:
        return None


def _is_line(value: object) -> bool:
    if not isinstance(value, dict) or value.get("kind") not in LINES:
        return False
    try:
        LINES[value["kind"]].model_validate(value)
    except ValidationError:
        return False
    return True


def _add_layers(layers: Columns, key: str, result: Mapping[str, Any]) -> None:
    found = result.get("density", {}).get("layers", {})
    layers["key"] += [key] * len(found)
    layers["layer"] += found
    layers["density"] += [layer["density"] for layer in found.values()]
    layers["numel"] += [layer["numel"] for layer in found.values()]

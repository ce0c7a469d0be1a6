"""The page's data of each completed trial, and the common data of all trials of a task."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapbench.analysis.collect import PROVENANCE, Run
from gapbench.analysis.histories import read_lines
from gapbench.analysis.layout import value_name
from gapbench.analysis.records import differing, is_given, is_number, plain, text_of
from gapbench.base.documents import is_plain

LOG_LINES = 15
LOG_BYTES = 8192
MOST_POINTS = 60  # of a curve that is a finger wide
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def by_task(runs: Sequence[tuple[str, Run]]) -> list[dict[str, Any]]:
    """Return, for each task, its trials and, if there are several, their common settings.

    Args:
        runs: completed trials with their names; see `named`.
    """
    tasks: dict[str, list[tuple[str, Run]]] = {}
    for name, run in runs:
        tasks.setdefault(run.trial.task, []).append((name, run))
    return [{"task": task, **_told(own)} for task, own in tasks.items()]


def _told(runs: Sequence[tuple[str, Run]]) -> dict[str, Any]:
    origins = [dict(_provenance(run)) for _, run in runs]
    settings = [_settings(run) for _, run in runs]
    origin, setting = _shared(origins), _shared(settings)
    trials = [
        {
            "key": run.trial.key,
            "label": name,
            "curves": list(_curves(run)),
            "provenance": _without(own, origin),
            "configuration": _in_lines(_without(given, setting)),
            "log": "" if run.folder is None else log_tail(run.folder.log),
        }
        for (name, run), own, given in zip(runs, origins, settings, strict=True)
    ]
    return {"provenance": origin, "configuration": _in_lines(setting), "trials": trials}


def _shared(many: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries that are equal in all mappings."""
    first, *others = many
    return {
        name: value
        for name, value in first.items()
        if others and all(name in other and other[name] == value for other in others)
    }


def _without(own: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in own.items() if name not in shared}


def _in_lines(settings: Mapping[str, Any]) -> str:
    """Return settings as JSON, one per line."""
    lines = [f"{json.dumps(n)}: {json.dumps(v, ensure_ascii=False)}" for n, v in settings.items()]
    return "{" + ",\n ".join(lines) + "}" if lines else ""


def _settings(run: Run) -> dict[str, Any]:
    """Return a trial's document without its plan, which follows from the method's options."""
    return {name: value for name, value in run.trial.document().items() if name != "plan"}


def named(runs: Sequence[tuple[str, Run]]) -> Iterator[tuple[str, Run]]:
    """Yield trials with distinguishing names, made of the task and the settings that differ."""
    several = len({run.trial.task for _, run in runs}) > 1
    names = [f"{name} ({run.trial.task})" if several else name for name, run in runs]
    settings = [run.trial.fields() for _, run in runs]
    alike: dict[str, list[dict[str, Any]]] = {}
    for name, own in zip(names, settings, strict=True):
        alike.setdefault(name, []).append(own)
    telling = {name: differing(same) for name, same in alike.items()}
    for name, own, (_, run) in zip(names, settings, runs, strict=True):
        given = [key for key in telling[name] if is_given(own.get(key))]
        words = [f"{key.replace('_', ' ')} {text_of(plain(own[key]))}" for key in given]
        yield ", ".join([name, *words]), run


def _provenance(run: Run) -> Iterator[tuple[str, str]]:
    for name, value in run.result.get("metrics", {}).items():
        yield name, f"{value:g}"
    for name in ("seed", *PROVENANCE):
        if is_given(run.result.get(name)):
            yield name.replace("_", " "), text_of(run.result[name])
    for part in ("signatures", "environment"):
        for name, value in run.result.get(part, {}).items():
            if is_given(value):
                yield name.replace("_", " "), text_of(value)


def _curves(run: Run) -> Iterator[dict[str, Any]]:
    lines = read_lines(run, ("epoch",))[0]
    metric = value_name(run.trial.task, "val/accuracy")
    for name in (metric, "train/loss", "coverage"):
        known = [line for line in lines if is_number(line.get(name)) and math.isfinite(line[name])]
        points = [(line["epoch"], line[name]) for line in known]
        if len(points) > 1:
            yield {
                "name": name,
                "points": polyline(_thinned(points)),
                "first": f"{points[0][1]:.4g}",
                "last": f"{points[-1][1]:.4g}",
                "epochs": len(lines),
            }


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points of a curve, including its first and last point."""
    step = (len(points) - 1) / (min(len(points), MOST_POINTS) - 1)
    return [points[round(number * step)] for number in range(min(len(points), MOST_POINTS))]


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Return points as the coordinates of an SVG polyline that fills 240 x 60, but for an edge."""
    width, height, edge = 240, 60, 4
    xs, ys = [x for x, _ in points], [y for _, y in points]
    across = (max(xs) - min(xs)) or 1.0
    down = (max(ys) - min(ys)) or 1.0
    return " ".join(
        f"{edge + (x - min(xs)) / across * (width - 2 * edge):.0f},"
        f"{height - edge - (y - min(ys)) / down * (height - 2 * edge):.0f}"
        for x, y in points
    )


def log_tail(path: Path) -> str:
    """Return the last lines of a log, without terminal control codes; "" if there is no log."""
    if not is_plain(path):
        return ""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return _CONTROL.sub("", "\n".join(text.splitlines()[-LOG_LINES:]))

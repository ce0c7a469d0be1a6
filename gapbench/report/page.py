"""The HTML page: one file that needs no network, works from a folder, and escapes every value."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import gapbench
from gapbench.analysis.collect import PROVENANCE, Run, Scan
from gapbench.analysis.histories import read_lines
from gapbench.analysis.layout import value_name
from gapbench.analysis.records import differ, is_given, plain, text_of
from gapbench.base.documents import is_plain
from gapbench.errors import UserError
from gapbench.report import render
from gapbench.report.answers import LEGEND, answer_grid
from gapbench.report.build import ReportResult, completed
from gapbench.report.canvas import figures
from gapbench.report.forest import forest_files
from gapbench.report.grids import Grid

PAGE = "index.html"
MOST_TRIALS = 1000  # a page of more is too large to read; their numbers are in runs.csv
LOG_LINES = 15
LOG_BYTES = 8192
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def write_page(reports: Sequence[ReportResult], title: str, found: Scan, path: Path) -> Path:
    """Write the page of some reports: summary, tables, figures, and every trial.

    Args:
        reports: what `report` returned.
        title: of the page.
        found: the run folders that they were made from.
        path: where to write.

    Raises:
        UserError: if it cannot be written, or is a link, which could lead anywhere.
    """
    if path.is_symlink():
        raise UserError(f"{path}: is a link: a page is written to a real file only")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gapbench.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    runs = _runs(reports, found)
    left_out = {(left.place, left.reason): None for made in reports for left in made.left_out}
    text = environment.get_template("page.html.j2").render(
        title=title,
        version=gapbench.__version__,
        answers=_answers(reports),
        ablations=[_ablation(made) for made in reports],
        trials=[_trial(name, run) for name, run in _named(list(runs.values())[:MOST_TRIALS])],
        completed=len(runs),
        left_out=list(left_out),
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _runs(reports: Sequence[ReportResult], found: Scan) -> dict[str, tuple[str, Run]]:
    """Return every completed trial once, with what its row is called."""
    runs: dict[str, tuple[str, Run]] = {}
    for made in reports:
        for trial in made.frame.to_dict("records"):
            run = found.runs.get(trial["key"])
            if run is not None:
                runs.setdefault(trial["key"], (run.trial.describe(str(trial["label"])), run))
    return runs


def _named(runs: Sequence[tuple[str, Run]]) -> Iterator[tuple[str, Run]]:
    """Yield trials with names that tell them apart: by task, and by the settings that differ."""
    several = len({run.trial.task for _, run in runs}) > 1
    names = [f"{name} ({run.trial.task})" if several else name for name, run in runs]
    settings = [run.trial.fields() for _, run in runs]
    alike: dict[str, list[dict[str, Any]]] = {}
    for name, own in zip(names, settings, strict=True):
        alike.setdefault(name, []).append(own)
    telling = {name: _differing(same) for name, same in alike.items()}
    for name, own, (_, run) in zip(names, settings, runs, strict=True):
        given = [key for key in telling[name] if is_given(own.get(key))]
        words = [f"{key.replace('_', ' ')} {text_of(plain(own[key]))}" for key in given]
        yield ", ".join([name, *words]), run


def _differing(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which trials differ, or that only some of them have."""
    names = dict.fromkeys(name for settings in trials for name in settings)
    first = trials[0]
    return [n for n in names if any(differ(first.get(n), other.get(n)) for other in trials)]


# -- ablations -----------------------------------------------------------------------------------


def _ablation(made: ReportResult) -> dict[str, Any]:
    name = made.spec.name
    return {
        "name": name,
        "anchor": f"ablation-{name}",
        "question": made.spec.question,
        "run": len(completed(made.frame)),
        "planned": len(made.frame),
        "grids": [
            _grid(grid, f"{name}: {grid.title}") for table in made.tables for grid in table.grids
        ],
        "figures": [_figure(path, made) for path in made.paths if path.suffix == ".svg"],
    }


def _answers(reports: Sequence[ReportResult]) -> dict[str, Any] | None:
    answers = [answer for made in reports for answer in made.evaluation.answers]
    if not answers:
        return None
    drawn = forest_files(answers)
    picture = None if drawn is None else base64.b64encode(drawn["svg"]).decode()
    told = _grid(answer_grid(answers, "Answers"), "Table of answers")
    return {**told, "picture": picture, "legend": LEGEND}


def _grid(grid: Grid, label: str) -> dict[str, Any]:
    """Return a grid and what tells it from the others of the page for those who hear it."""
    html = Markup(render.html_grid(grid)) if grid.body else None
    return {"title": grid.title, "label": label, "html": html, "notes": grid.notes}


def _figure(path: Path, made: ReportResult) -> dict[str, str]:
    name, _, task = path.stem.partition("-")
    words = (figures[name].__doc__ or name).strip().splitlines()[0].removeprefix("Draw ")
    words = f"{words.removesuffix('.')} ({task})." if task else words
    return {
        "name": path.stem,
        "label": f"{made.spec.name}, {task or made.tables[0].task}: figure {name}",
        "caption": words[0].upper() + words[1:],
        "data": base64.b64encode(path.read_bytes()).decode(),
    }


# -- trials --------------------------------------------------------------------------------------


def _trial(label: str, run: Run) -> dict[str, Any]:
    return {
        "key": run.trial.key,
        "label": label,
        "curves": list(_curves(run)),
        "provenance": list(_provenance(run)),
        "configuration": json.dumps(run.trial.document(), indent=1, ensure_ascii=False),
        "log": "" if run.folder is None else log_tail(run.folder.log),
    }


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
        points = [(line["epoch"], line[name]) for line in lines if _is_finite(line.get(name))]
        if len(points) > 1:
            yield {
                "name": name,
                "points": polyline(points),
                "first": f"{points[0][1]:.4g}",
                "last": f"{points[-1][1]:.4g}",
                "epochs": len(lines),
            }


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def polyline(
    points: Sequence[tuple[float, float]], width: float = 240, height: float = 60, edge: float = 4
) -> str:
    """Return points as the coordinates of an SVG polyline that fills width x height."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    across = (max(xs) - min(xs)) or 1.0
    down = (max(ys) - min(ys)) or 1.0
    return " ".join(
        f"{edge + (x - min(xs)) / across * (width - 2 * edge):.1f},"
        f"{height - edge - (y - min(ys)) / down * (height - 2 * edge):.1f}"
        for x, y in points
    )


def log_tail(path: Path) -> str:
    """Return the last lines of a log, without terminal control codes; "" where there is none."""
    if not is_plain(path):
        return ""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return _CONTROL.sub("", "\n".join(text.splitlines()[-LOG_LINES:]))

"""The HTML page: one file that needs no network and no server, with all values escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import gapbench
from gapbench.analysis.collect import Run, Scan
from gapbench.analysis.evaluation import Answer
from gapbench.errors import UserError
from gapbench.methods.method import methods
from gapbench.report import render
from gapbench.report.answers import LEGEND, answer_grid
from gapbench.report.build import ReportResult, completed
from gapbench.report.canvas import figures
from gapbench.report.drawing import inline, title_of
from gapbench.report.forest import forest_files
from gapbench.report.grids import Grid
from gapbench.report.trials import by_task, named

FIRST_FIGURES = 2  # of each task stand open, the others are folded away
MOST_TRIALS = 1000  # a page of more is too large to read; their numbers are in runs.csv
LOG_LINES = 15
LOG_BYTES = 8192
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def write_page(reports: Sequence[ReportResult], title: str, found: Scan, path: Path) -> Path:
    """Write the page of some reports: summary, tables, figures, and every trial.

    Args:
        reports: the reports from `report`.
        title: title of the page.
        found: the run folders of the reports.
        path: path of the page.

    Raises:
        UserError: if the page cannot be written, or `path` is a link, which could lead anywhere.
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
        ablations=[_ablation(made, alone=len(reports) == 1) for made in reports],
        methods={name: methods[name].label for name in methods},
        tasks=by_task(list(named(list(runs.values())[:MOST_TRIALS]))),
        shown=min(len(runs), MOST_TRIALS),
        completed=len(runs),
        left_out=list(left_out),
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _runs(reports: Sequence[ReportResult], found: Scan) -> dict[str, tuple[str, Run]]:
    """Return every completed trial once, with the name of its row."""
    runs: dict[str, tuple[str, Run]] = {}
    for made in reports:
        for trial in made.frame.to_dict("records"):
            run = found.runs.get(trial["key"])
            if run is not None:
                runs.setdefault(trial["key"], (run.trial.describe(str(trial["label"])), run))
    return runs


def _ablation(made: ReportResult, alone: bool) -> dict[str, Any]:
    """Return the section of an ablation: question, answers, and the details that fold out.

    Args:
        made: the report of an ablation.
        alone: whether the top of the page already shows this ablation's answers.
    """
    name = made.spec.name
    anchor = f"ablation-{name}"
    grids = [
        [_grid(grid, f"{name}: {grid.title}") for grid in table.grids] for table in made.tables
    ]
    shown, folded = [], []
    paths = [path for path in made.paths if path.suffix == ".svg"]
    for table in made.tables:
        suffix = f"-{table.task}" if len(made.tables) > 1 else ""
        own = [path for path in paths if path.stem.endswith(suffix)]
        drawn = [_figure(path, table.task, made.spec.name) for path in own]
        shown += drawn[:FIRST_FIGURES]
        folded += drawn[FIRST_FIGURES:]
    return {
        "name": name,
        "anchor": anchor,
        "question": made.spec.question,
        "run": len(completed(made.frame)),
        "planned": len(made.frame),
        "picture": None if alone else _picture(made.evaluation.answers, anchor),
        "results": [own[0] for own in grids],
        "details": [grid for own in grids for grid in own[1:]],
        "figures": shown,
        "more": folded,
    }


def _answers(reports: Sequence[ReportResult]) -> dict[str, Any] | None:
    answers = [answer for made in reports for answer in made.evaluation.answers]
    if not answers:
        return None
    told = _grid(answer_grid(answers, "Answers"), "Table of answers")
    return {**told, "picture": _picture(answers, "answers"), "legend": LEGEND}


def _picture(answers: Sequence[Answer], name: str) -> Markup | None:
    drawn = forest_files(answers)
    if drawn is None:
        return None
    words = "Measured differences with intervals, claim by claim. The table has the numbers."
    return Markup(inline(drawn["svg"], name, words))


def _grid(grid: Grid, label: str) -> dict[str, Any]:
    """Return a grid with a label that distinguishes it from other grids for screen readers."""
    html = Markup(render.html_grid(grid)) if grid.body else None
    return {"title": grid.title, "label": label, "html": html, "notes": grid.notes}


def _figure(path: Path, task: str, ablation: str) -> dict[str, Any]:
    name = path.stem.removesuffix(f"-{task}")
    words = (figures[name].__doc__ or name).strip().splitlines()[0].removeprefix("Draw ")
    words = words.removesuffix(".") + ("." if name == path.stem else f" ({task}).")
    svg = path.read_bytes()
    caption = f"{words[0].upper()}{words[1:]} {title_of(svg)}".strip()
    told = f"{caption} The numbers are in figures/{path.stem}.csv."
    return {
        "name": path.stem,
        "label": f"{ablation}, {task}: figure {name}",
        "caption": caption,
        "picture": Markup(inline(svg, f"{ablation}-{path.stem}", told)),
    }

"""Writing of reports of completed trials to results/reports/<scale>/<ablation>/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gapbench.analysis.collect import RUNS, LeftOut, Scan, runs_frame, scan, write_runs
from gapbench.analysis.evaluation import Evaluation, TaskEvaluation, evaluate
from gapbench.analysis.histories import read_histories
from gapbench.analysis.records import COMPLETED
from gapbench.base.documents import require_real
from gapbench.errors import UserError
from gapbench.report import render
from gapbench.report.canvas import evidence_of, figures, lines_of
from gapbench.report.drawing import KINDS, draw, save, unshown
from gapbench.report.grids import Table
from gapbench.report.numbers import answers_frame, cells_frame
from gapbench.report.tables import tables_of
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec

if TYPE_CHECKING:
    from rich.console import RenderableType

REPORTS = "reports"  # in the results folder; git keeps none of them
PAGE = "index.html"


@dataclass(frozen=True)
class ReportResult:
    """A written report.

    Attributes:
        evaluation: evaluation of the ablation.
        folder: results/reports/<scale>/<ablation>.
        paths: paths of all files of the report.
        tables: one table per task.
        left_out: run folders, histories and figures that the report lacks, with reasons.
    """

    evaluation: Evaluation
    folder: Path
    paths: tuple[Path, ...]
    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def page(self) -> Path:
        """Path of the report's page, which `write_page` writes."""
        return self.folder / PAGE

    @property
    def spec(self) -> AblationSpec:
        """The ablation."""
        return self.evaluation.spec

    @property
    def frame(self) -> pd.DataFrame:
        """The content of runs.csv."""
        return self.evaluation.frame

    def renderable(self) -> RenderableType:
        """Return the report in the form for the terminal."""
        return render.screen(self.tables)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: every grid as a list of lines by head."""
        grids = [
            {
                "task": table.task,
                "title": grid.title,
                "rows": grid.frame().to_dict("records"),
                "notes": list(grid.notes),
            }
            for table in self.tables
            for grid in table.grids
        ]
        return {
            "folder": str(self.folder),
            "paths": [str(path) for path in self.paths],
            "tables": grids,
            "left_out": [{"place": o.place, "reason": o.reason} for o in self.left_out],
        }


def report(
    ablation: Ablation,
    scale: str,
    entries: Sequence[Entry],
    results: Path,
    found: Scan | None = None,
) -> ReportResult:
    """Write runs.csv, tables and figures of an ablation's trials, as far as trials have run.

    Args:
        ablation: the ablation; its report section defines tables and figures.
        scale: name of the scale, which names the folder.
        entries: the trials, run or not.
        results: the results folder.
        found: the result of `scan`, if it is known already.

    Raises:
        UserError: if the report section does not match the trials, or a file cannot be written.
    """
    found = scan(results) if found is None else found
    folder = results / REPORTS / scale / ablation.name
    evaluation = evaluate(runs_frame(entries, found), ablation.spec)
    try:
        _make(results, folder / "figures")
        return _write(evaluation, folder, found)
    except OSError as error:
        place = error.filename or folder  # a full disk is told without a name
        raise UserError(f"{place}: cannot be written: {error.strerror}") from None


def completed(frame: pd.DataFrame) -> list[str]:
    """Return the keys of the trials that have completed."""
    return list(frame["key"][frame["state"] == COMPLETED])


def _write(evaluation: Evaluation, folder: Path, found: Scan) -> ReportResult:
    write_runs(evaluation.frame, folder / RUNS)
    tables = tables_of(evaluation)
    paths = [folder / RUNS]
    for name, text in table_texts(evaluation, tables).items():
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    drawn, left_out = _draw(evaluation, folder / "figures", found)
    return ReportResult(
        evaluation=evaluation,
        folder=folder,
        paths=(*paths, *drawn),
        tables=tables,
        left_out=(*found.left_out, *left_out),
    )


def table_texts(evaluation: Evaluation, tables: Sequence[Table]) -> dict[str, str]:
    """Return the content of every table file by file name."""
    return {
        "table.md": render.markdown(tables),
        "table.csv": cells_frame(evaluation).to_csv(index=False, lineterminator="\n"),
        "answers.csv": answers_frame(evaluation).to_csv(index=False, lineterminator="\n"),
        "table.tex": render.latex(tables),
    }


def _make(results: Path, folder: Path) -> None:
    """Create the folder of the figures; refuse links out of the results folder."""
    require_real(folder, results)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*folder.parent.iterdir(), *folder.iterdir()):
        require_real(path, results)


def _draw(evaluation: Evaluation, place: Path, found: Scan) -> tuple[list[Path], list[LeftOut]]:
    """Draw the figures of every task, and remove outdated figures of an earlier report."""
    spec = evaluation.spec
    paths, left_out = [], []
    labels = "".join(str(label) for label in evaluation.frame["label"])
    if lacking := unshown(labels):
        why = f"boxes stand for {lacking}: no font here has these signs: install Noto Sans CJK"
        left_out.append(LeftOut(f"{spec.name}/figures", why))
    drawn = figure_files(evaluation, found)
    left_out += drawn.broken
    for stem, files in (item for own in drawn.by_task for item in own.items()):
        if files is None:
            where = f"{spec.name}/figures/{stem}"
            left_out.append(LeftOut(where, "no completed trial has data for this figure"))
        else:
            paths += save(files, place, stem)
    for path in set(place.iterdir()) - set(paths):
        if path.suffix.removeprefix(".") in KINDS and path.stem.partition("-")[0] in figures:
            path.unlink()
    return paths, left_out


@dataclass(frozen=True)
class FigureFiles:
    """The figures of an ablation, and broken histories.

    Attributes:
        by_task: files of each task's figures by file stem; None if there is nothing to draw.
    """

    by_task: tuple[dict[str, dict[str, bytes] | None], ...]
    broken: tuple[LeftOut, ...]


def figure_files(evaluation: Evaluation, found: Scan) -> FigureFiles:
    """Draw the figures that the report section names, or all figures, for every task."""
    names = tuple(evaluation.spec.report.figures or figures)
    runs = [found.runs[key] for key in evaluation.frame["key"] if key in found.runs]
    metrics = {f"val/{one.value.rpartition('/')[2]}" for one in evaluation.results}
    histories = read_histories(runs, [*sorted(metrics), "train/loss", "val/loss"], lines_of(names))

    by_task = []
    for task in evaluation.tasks:
        results = task.results
        suffix = f"-{results.task}" if len(evaluation.tasks) > 1 else ""
        baseline = task.to_baseline, evaluation.spec.report.baseline
        evidence = evidence_of(results, evaluation.frame, histories, _claimed(task), *baseline)
        by_task.append({f"{name}{suffix}": draw(name, evidence) for name in names})
    return FigureFiles(tuple(by_task), histories.left_out)


def _claimed(task: TaskEvaluation) -> set[str]:
    """Return the names of the rows that claims compare."""
    compared = [one for answer in task.answers for one in answer.comparisons]
    return {row.name for one in compared for row in (one.row, one.reference)}

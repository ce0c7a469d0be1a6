"""Everything that a report writes: results/reports/<scale>/<ablation>/, from what has run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gapbench.base.documents import require_real
from gapbench.errors import UserError
from gapbench.report import render
from gapbench.report.cells import Results, results_of
from gapbench.report.collect import (
    RUNS,
    LeftOut,
    Run,
    Scan,
    runs_frame,
    scan,
    write_runs,
)
from gapbench.report.figures import draw_all, evidence_of, lines_of, save, unshown
from gapbench.report.full_numbers import answers_csv, cells_csv
from gapbench.report.histories import Histories, read_histories
from gapbench.report.plots import figures
from gapbench.report.records import COMPLETED
from gapbench.report.tables import Table, table_of
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec

if TYPE_CHECKING:
    from rich.console import RenderableType

REPORTS = "reports"  # in the results folder; git keeps none of them
STAMP = "made_from.json"


@dataclass(frozen=True)
class ReportResult:
    """What a report made.

    Attributes:
        spec: the ablation.
        folder: results/reports/<scale>/<ablation>.
        frame: runs.csv.
        results: one a task.
        paths: every file of the report.
        tables: one a task.
        left_out: run folders, histories and figures that are not in it, and why.
    """

    spec: AblationSpec
    folder: Path
    frame: pd.DataFrame
    results: tuple[Results, ...]
    paths: tuple[Path, ...]
    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...]

    def renderable(self) -> RenderableType:
        """Return what the terminal shows."""
        return render.screen(self.tables)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: every grid as a list of lines by head."""
        grids = [
            {
                "task": table.task,
                "title": grid.title,
                "rows": [
                    dict(zip(render.full_heads(grid), (cell.text for cell in row), strict=True))
                    for row in grid.body
                ],
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
    """Write runs.csv, tables and figures of trials of an ablation, as far as they have run.

    Args:
        ablation: its report section says what the tables and figures are.
        scale: names the folder.
        entries: the trials, run or not.
        results: the results folder.
        found: what `scan` returned, if it is known already.

    Raises:
        UserError: if the report section does not fit the trials, or a file cannot be written.
    """
    found = scan(results) if found is None else found
    frame, folder = runs_frame(entries, found), results / REPORTS / scale / ablation.name
    try:
        _make(results, folder / "figures")
        return _write(ablation.spec, folder, frame, found)
    except OSError as error:
        place = error.filename or folder  # a full disk is told without a name
        raise UserError(f"{place}: cannot be written: {error.strerror}") from None


def completed(frame: pd.DataFrame) -> list[str]:
    """Return the keys of the trials that have completed."""
    return list(frame["key"][frame["state"] == COMPLETED])


def _write(spec: AblationSpec, folder: Path, frame: pd.DataFrame, found: Scan) -> ReportResult:
    write_runs(frame, folder / RUNS)
    all_results = results_of(frame, spec)
    tables = tuple(table_of(results, spec) for results in all_results)
    paths = [folder / RUNS]
    for name, text in table_texts(all_results, tables, spec).items():
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    drawn, left_out = _figures(spec, folder, found, frame, all_results)
    return ReportResult(
        spec=spec,
        folder=folder,
        frame=frame,
        results=tuple(all_results),
        paths=(*paths, *drawn),
        tables=tables,
        left_out=(*found.left_out, *left_out),
    )


def table_texts(
    all_results: Sequence[Results], tables: Sequence[Table], spec: AblationSpec
) -> dict[str, str]:
    """Return the content of every table file, by its name."""
    return {
        "table.md": render.markdown(tables),
        "table.csv": cells_csv(all_results, spec),
        "answers.csv": answers_csv(all_results, spec),
        "table.tex": render.latex(tables),
        "table.html": render.html_tables(tables),
    }


def _make(results: Path, folder: Path) -> None:
    """Make the folder of the figures; no link, there or on the way, leads out of the results."""
    require_real(folder, results)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*folder.parent.iterdir(), *folder.iterdir()):
        require_real(path, results)


# -- figures -------------------------------------------------------------------------------------


def _figures(
    spec: AblationSpec,
    folder: Path,
    found: Scan,
    frame: pd.DataFrame,
    all_results: Sequence[Results],
) -> tuple[list[Path], list[LeftOut]]:
    """Draw the figures, unless those there are made from the same runs by the same code."""
    place = folder / "figures"
    runs = [found.runs[key] for key in frame["key"] if key in found.runs]
    made_from, before = _made_from(spec, folder, runs), _Stamp.read(place)
    if before.made_from == made_from and all((place / name).is_file() for name in before.files):
        return [place / name for name in before.files], list(before.left_out)
    metrics = {f"val/{results.value.rpartition('/')[2]}" for results in all_results}
    names = tuple(spec.report.figures or figures)
    lacking = unshown("".join(str(label) for label in frame["label"]))
    histories = read_histories(runs, [*sorted(metrics), "train/loss", "val/loss"], lines_of(names))
    paths, left_out = [], list(histories.left_out)
    if lacking:
        why = f"signs are boxes, as no font here has {lacking}: install one, such as Noto Sans CJK"
        left_out.append(LeftOut(f"{spec.name}/figures", why))
    for results in all_results:
        drawn, empty = _draw_all(names, place, results, frame, histories, len(all_results) > 1)
        paths += drawn
        left_out += empty
    names_now = tuple(path.name for path in paths)
    for name in before.files:  # no other file is removed
        if name not in names_now:
            (place / name).unlink(missing_ok=True)
    _Stamp(made_from, names_now, tuple(left_out)).write(place)
    return paths, left_out


def _draw_all(
    names: Sequence[str],
    place: Path,
    results: Results,
    frame: pd.DataFrame,
    histories: Histories,
    several: bool,
) -> tuple[list[Path], list[LeftOut]]:
    evidence = evidence_of(results, frame, histories)
    paths, left_out = [], []
    for name, files in zip(names, draw_all(names, evidence), strict=True):
        stem = f"{name}-{results.task}" if several else name
        if files is None:
            place_of = f"{results.ablation}/figures/{stem}"
            left_out.append(LeftOut(place_of, "nothing has run that it could show"))
        else:
            paths += save(files, place, stem)
    return paths, left_out


@dataclass(frozen=True)
class _Stamp:
    """What the figures of an earlier report were made from, which they are, and what they lack."""

    made_from: str = ""
    files: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def read(cls, place: Path) -> _Stamp:
        """Read the stamp of a folder; one that is missing or damaged is empty."""
        try:
            known = json.loads((place / STAMP).read_text(encoding="utf-8"))
            files = [name for name in known["files"] if name == os.path.basename(name)]
            left_out = [LeftOut(str(of), str(why)) for of, why in known["left_out"]]
            return cls(str(known["made_from"]), tuple(files), tuple(left_out))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, place: Path) -> None:
        """Write it beside the figures."""
        left_out = [(left.place, left.reason) for left in self.left_out]
        known = {"made_from": self.made_from, "files": self.files, "left_out": left_out}
        (place / STAMP).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def _made_from(spec: AblationSpec, folder: Path, runs: Sequence[Run]) -> str:
    """Return the hash of all that figures follow from: runs, ablation, and this package.

    Results and histories count by size and time of change: reading thousands is what a stamp saves.
    """
    whole = hashlib.sha256((folder / RUNS).read_bytes())
    whole.update(spec.model_dump_json().encode())
    for run in runs:
        if run.folder is not None:
            files = (run.folder.result, run.folder.history)
            whole.update(repr([_state(path) for path in files]).encode())
    package = resources.files("gapbench.report")
    with resources.as_file(package) as root:
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".mplstyle", ".csv"):
                whole.update(path.read_bytes())
    return whole.hexdigest()


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns

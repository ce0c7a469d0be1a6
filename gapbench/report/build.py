"""A report: run folders in, tables and figures out. Nothing is computed but from those folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapbench.errors import UserError
from gapbench.experiments.ablation import Ablation
from gapbench.experiments.grid import Entry
from gapbench.report import render
from gapbench.report.cells import results_of
from gapbench.report.collect import LeftOut, read_runs, runs_frame, scan, write_runs
from gapbench.report.tables import Table, table_of, to_csv

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
        folder: where the files are.
        left_out: folders that were not used, and why.
    """

    folder: Path
    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...]

    def renderable(self) -> RenderableType:
        """Return what a terminal shows."""
        return render.screen(self.tables)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "folder": str(self.folder),
            "files": sorted(str(path.relative_to(self.folder)) for path in _files(self.folder)),
            "left_out": [vars(left) for left in self.left_out],
        }


def report(ablation: Ablation, scale: str, entries: Sequence[Entry], results: Path) -> Report:
    """Write runs.csv, tables and figures of an ablation to results/<scale>/<ablation>/.

    Raises:
        UserError: if the folder cannot be written, or the report section does not fit the trials.
    """
    found = scan(results)
    folder = results / scale / ablation.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_runs(runs_frame(entries, found), folder / "runs.csv")
        all_results = results_of(read_runs(folder / "runs.csv"), ablation.spec)
        tables = tuple(table_of(one, ablation.spec) for one in all_results)
        for name, text in {
            "table.md": render.markdown(tables),
            "table.tex": render.latex(tables),
            "table.html": render.html_tables(tables),
            "table.csv": to_csv(all_results, ablation.spec),
        }.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    return Report(folder, tables, found.left_out)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]

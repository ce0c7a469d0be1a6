"""`gapbench publish`: completed trials as the evidence that git keeps, and what follows from it.

results/<scale>/<ablation>/ gets trials.jsonl, table.md and the figures that carry the answer, and
results/<scale>/ gets answers.md. All but the figures are compared by `check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gapbench.base.documents import is_plain, require_real, write_text
from gapbench.errors import UserError
from gapbench.report import render
from gapbench.report.cells import results_of
from gapbench.report.collect import Scan
from gapbench.report.figures import draw_all, evidence_of, lines_of, save
from gapbench.report.histories import read_histories
from gapbench.report.tables import table_of
from gapbench.report.trials import Kept, path_of, read_trials, write_trials
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec

TABLE = "table.md"
MOST_FIGURES = 2  # of each task: what the report draws more is made again where it is wanted


def publish(
    ablation: Ablation, scale: str, entries: Sequence[Entry], results: Path, found: Scan
) -> list[Path]:
    """Write the evidence of an ablation's completed trials, and return the files.

    Args:
        ablation: the file.
        scale: names the folder.
        entries: its trials, run or not.
        results: the results folder.
        found: the run folders, and the evidence of trials that have none here, which stay in it.

    Raises:
        UserError: if none has completed, or a file cannot be written.
    """
    runs = [found.runs[entry.trial.key] for entry in entries if entry.trial.key in found.runs]
    if not runs:
        raise UserError(f"{ablation.document.name}: no trial has completed at scale {scale}")
    path = path_of(results, scale, ablation.name)
    try:
        require_real(path, results)
        path.parent.mkdir(parents=True, exist_ok=True)
        for there in path.parent.iterdir():
            require_real(there, results)
        write_trials(path, entries, runs)
        kept = read_trials(path, results)
        table = path.with_name(TABLE)
        write_text(table, table_text(ablation.spec, kept))
        return [path, table, *_draw(ablation.spec, kept, found, path.parent)]
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written: {error.strerror}") from None


def table_text(spec: AblationSpec, kept: Kept) -> str:
    """Return what table.md holds."""
    return render.markdown([table_of(one, spec) for one in results_of(kept.frame, spec)])


def _draw(spec: AblationSpec, kept: Kept, found: Scan, folder: Path) -> Iterator[Path]:
    """Draw the first figures of each task that what has run, and is here, can be drawn in."""
    frame, names = kept.frame, tuple(spec.report.figures)
    all_results = results_of(frame, spec)
    runs = [found.runs[key] for key in frame["key"] if key in found.runs]
    metrics = sorted({f"val/{one.value.rpartition('/')[2]}" for one in all_results})
    histories = read_histories(runs, [*metrics, "train/loss", "val/loss"], lines_of(names))
    for one in all_results:
        drawn = zip(names, draw_all(names, evidence_of(one, frame, histories)), strict=True)
        for name, files in [(n, f) for n, f in drawn if f is not None][:MOST_FIGURES]:
            stem = f"{name}-{one.task}" if len(all_results) > 1 else name
            yield from save({"svg": files["svg"]}, folder, stem)


def check(results: Path, scale: str, spec: AblationSpec) -> list[str] | None:
    """Return the files of an ablation that are not what its evidence gives; None without evidence.

    Raises:
        UserError: if the evidence is damaged, or does not fit the ablation.
    """
    path = path_of(results, scale, spec.name)
    if not path.is_file():
        return None
    wanted = table_text(spec, read_trials(path, results)).encode()
    table = path.with_name(TABLE)
    return [] if is_plain(table) and table.read_bytes() == wanted else [TABLE]

"""`gapbench publish`: the evidence of completed trials for git, and the files made from it.

results/<scale>/<ablation>/ gets trials.jsonl, table.md and the figures that show the answer;
results/<scale>/ gets README.md. `check` compares all files except the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gapbench.analysis.collect import Scan
from gapbench.analysis.evaluation import Evaluation, evaluate, published_evaluation
from gapbench.analysis.evidence import path_of, read_trials, write_trials
from gapbench.base.documents import is_plain, write_text
from gapbench.errors import UserError
from gapbench.report import render
from gapbench.report.build import figure_files, ready
from gapbench.report.drawing import for_both_schemes, save
from gapbench.report.tables import tables_of
from gapbench.spec.ablation import Ablation
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec

TABLE = "table.md"
MOST_FIGURES = 2  # of each task: what the report draws more is made again where it is wanted


def publish(
    ablation: Ablation, scale: str, entries: Sequence[Entry], results: Path, found: Scan
) -> list[Path]:
    """Write the evidence of an ablation's completed trials, and return the files.

    `found` has published trials without a run folder here, too; the evidence keeps these trials.

    Raises:
        UserError: if no trial has completed, or a file cannot be written.
    """
    runs = [found.runs[entry.trial.key] for entry in entries if entry.trial.key in found.runs]
    if not runs:
        raise UserError(
            f"{ablation.document.name}: no trial has completed at scale {scale}: "
            f"`gapbench run FILE --scale {scale}` trains them"
        )
    path = path_of(results, scale, ablation.name)
    try:
        ready(path.parent, results)
        write_trials(path, entries, runs)
        evaluation = evaluate(read_trials(path, results).frame, ablation.spec)
        table = path.with_name(TABLE)
        write_text(table, render.markdown(tables_of(evaluation)))
        return [path, table, *_draw(evaluation, found, path.parent)]
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written: {error.strerror}") from None


def _draw(evaluation: Evaluation, found: Scan, folder: Path) -> Iterator[Path]:
    """Draw the first figures of each task that can be drawn from the runs present here."""
    for figures in figure_files(evaluation, found)[0]:
        drawn = [(stem, files) for stem, files in figures.items() if files]
        for stem, files in drawn[:MOST_FIGURES]:
            yield from save({"svg": for_both_schemes(files["svg"])}, folder, stem)


def check(results: Path, scale: str, spec: AblationSpec) -> list[str] | None:
    """Return the files of an ablation that differ from its evidence; None without evidence.

    Raises:
        UserError: if the evidence is damaged, or does not match the ablation.
    """
    evaluation = published_evaluation(results, scale, spec)
    if evaluation is None:
        return None
    wanted = render.markdown(tables_of(evaluation)).encode()
    table = path_of(results, scale, spec.name).with_name(TABLE)
    return [] if is_plain(table) and table.read_bytes() == wanted else [TABLE]

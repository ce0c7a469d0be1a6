"""Results as a CSV of full numbers, one line a cell."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from gapbench.experiments.schema import AblationSpec
from gapbench.report.cells import COSTS, Cell, Results
from gapbench.report.comparisons import Comparison, to_baseline

CSV_HEAD = (
    "ablation", "task", "row", "column_field", "column", "value", "n", "planned", "diverged",
    "mean", "sd", "half_width", "published", "published_task", "published_source", "baseline",
    "difference", "difference_half_width", "difference_n", "effect_size", "p", "p_holm",
    "detectable", "verdict", *COSTS, "values",
)  # fmt: skip


def to_csv(all_results: Sequence[Results], spec: AblationSpec) -> str:
    """Return every cell with all its numbers in full precision, one line a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = spec.report.rows
    at = CSV_HEAD.index("row")
    writer.writerow((*CSV_HEAD[:at], *fields, *CSV_HEAD[at + 1 :]))
    for results in all_results:
        known = {(c.row.fields, c.column): c for c in to_baseline(results, spec.report.baseline)}
        for row, column, cell in results.cells():
            writer.writerow(
                (
                    results.ablation, results.task, *row.fields, results.column, column,
                    results.value, *_numbers(cell), *_differences(known.get((row.fields, column))),
                    *(cell.costs.get(name) for name in COSTS),
                    json.dumps({str(seed): value for seed, value in sorted(cell.values.items())}),
                )
            )  # fmt: skip
    return text.getvalue()


def _numbers(cell: Cell) -> tuple[object, ...]:
    summary, paper = cell.summary, cell.published
    return (
        summary.n if summary else 0,
        cell.planned,
        len(cell.diverged),
        *((summary.mean, summary.sd, summary.half_width) if summary else (None,) * 3),
        *((paper.value, paper.task, paper.source) if paper else (None,) * 3),
    )


def _differences(comparison: Comparison | None) -> tuple[object, ...]:
    if comparison is None or comparison.difference is None:
        return (None,) * 8
    found = comparison.difference
    return (
        comparison.reference.name, found.summary.mean, found.summary.half_width, found.summary.n,
        found.effect, found.p, comparison.p_holm, comparison.detectable, comparison.verdict,
    )  # fmt: skip

"""Results and answers as CSV of full numbers, one line a cell or a comparison."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gapbench.report.answers import answers_of
from gapbench.report.cells import COSTS, Cell, Results
from gapbench.report.comparisons import Comparison, to_baseline
from gapbench.report.tables import claim_word
from gapbench.spec.schema import AblationSpec

Line = dict[str, Any]

DIFFERENCE = (
    "difference", "difference_half_width", "difference_n", "effect_size", "p", "p_holm",
    "detectable",
)  # fmt: skip
CELL = (
    "n", "planned", "diverged", "mean", "sd", "half_width", "published", "published_task",
    "published_source", "baseline", "comparisons", *DIFFERENCE, "verdict", *COSTS, "values",
)  # fmt: skip
ANSWER = (
    "ablation", "task", "question", "row", "against", "column_field", "column", "value", "margin",
    "comparisons", *DIFFERENCE, "diverged", "answer",
)  # fmt: skip


def cells_csv(all_results: Sequence[Results], spec: AblationSpec) -> str:
    """Return every cell with all its numbers in full precision, one line a cell.

    `p_holm` is corrected for the `comparisons` with the baseline, run or not.
    """
    head = ("ablation", "task", *spec.report.rows, "column_field", "column", "value", *CELL)
    return _csv(head, (line for results in all_results for line in _cells(results, spec)))


def answers_csv(all_results: Sequence[Results], spec: AblationSpec) -> str:
    """Return what was compared to answer the ablation's questions, one line a comparison.

    `p_holm` is corrected for the `comparisons` of one question on one task, run or not.
    """
    return _csv(ANSWER, _answers(all_results, spec))


def _csv(head: Sequence[str], lines: Iterable[Line]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _cells(results: Results, spec: AblationSpec) -> Iterator[Line]:
    known = {(c.row.fields, c.column): c for c in to_baseline(results, spec.report.baseline)}
    for row, column, cell in results.cells():
        line: Line = {
            "ablation": results.ablation,
            "task": results.task,
            **dict(zip(spec.report.rows, row.fields, strict=True)),
            "column_field": results.column,
            "column": column,
            "value": results.value,
            **_numbers(cell),
            **{name: cell.costs.get(name) for name in COSTS},
            "values": json.dumps({str(seed): v for seed, v in sorted(cell.values.items())}),
        }
        comparison = known.get((row.fields, column))
        if comparison is not None:
            line |= {"baseline": comparison.reference.name, "comparisons": len(known)}
            if comparison.difference is not None:
                line |= {**_difference(comparison), "verdict": comparison.verdict}
        yield line


def _numbers(cell: Cell) -> Line:
    numbers: Line = {"n": 0, "planned": cell.planned, "diverged": len(cell.diverged)}
    if cell.summary is not None:
        found = cell.summary
        numbers |= {
            "n": found.n, "mean": found.mean, "sd": found.sd, "half_width": found.half_width
        }  # fmt: skip
    if cell.published is not None:
        paper = cell.published
        numbers |= {
            "published": paper.value, "published_task": paper.task, "published_source": paper.source
        }  # fmt: skip
    return numbers


def _answers(all_results: Sequence[Results], spec: AblationSpec) -> Iterator[Line]:
    for answer in answers_of(spec, all_results):
        for comparison in answer.comparisons:
            yield {
                "ablation": answer.results.ablation,
                "task": answer.results.task,
                "question": answer.claim.asks,
                "row": comparison.row.name,
                "against": comparison.reference.name,
                "column_field": answer.results.column,
                "column": comparison.column,
                "value": answer.results.value,
                "margin": answer.claim.margin,
                "comparisons": len(answer.comparisons),
                **_difference(comparison),
                "diverged": comparison.diverged,
                "answer": claim_word(comparison) if comparison.run else None,
            }


def _difference(comparison: Comparison) -> Line:
    found = comparison.difference
    if found is None:
        return {}
    numbers = (
        found.summary.mean, found.summary.half_width, found.summary.n, found.effect, found.p,
        comparison.p_holm, comparison.detectable,
    )  # fmt: skip
    return dict(zip(DIFFERENCE, numbers, strict=True))

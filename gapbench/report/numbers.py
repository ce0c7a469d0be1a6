"""Cells and comparisons in full precision: frames, one line a cell or a comparison."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from gapbench.analysis.cells import COSTS, Cell
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import Evaluation, claim_word

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


def cells_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return every cell with all its numbers, one line a cell.

    `p_holm` is corrected for the `comparisons` with the baseline, run or not.
    """
    head = ("ablation", "task", *evaluation.spec.report.rows, "column_field", "column", "value")
    lines: list[Line] = []
    for task in evaluation.tasks:
        results = task.results
        known = {(c.row.fields, c.column): c for c in task.to_baseline}
        for row, column, cell in results.cells():
            line: Line = {
                "ablation": results.ablation,
                "task": results.task,
                **dict(zip(results.fields, row.fields, strict=True)),
                "column_field": results.column,
                "column": column,
                "value": results.value,
                **_numbers(cell),
                "values": json.dumps({str(seed): v for seed, v in sorted(cell.values.items())}),
            }
            comparison = known.get((row.fields, column))
            if comparison is not None:
                line |= {"baseline": comparison.reference.name, "comparisons": len(known)}
                line |= _difference(comparison)
                line["verdict"] = comparison.verdict if comparison.difference else None
            lines.append(line)
    return pd.DataFrame(lines, columns=[*head, *CELL], dtype=object)


def answers_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return what was compared to answer the ablation's questions, one line a comparison.

    `p_holm` is corrected for the `comparisons` of one question on one task, run or not.
    """
    lines = [
        {
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
        for answer in evaluation.answers
        for comparison in answer.comparisons
    ]
    return pd.DataFrame(lines, columns=list(ANSWER), dtype=object)


def _numbers(cell: Cell) -> Line:
    numbers: Line = {"n": 0, "planned": cell.planned, "diverged": len(cell.diverged), **cell.costs}
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


def _difference(comparison: Comparison) -> Line:
    found = comparison.difference
    if found is None:
        return {}
    numbers = (
        found.summary.mean, found.summary.half_width, found.summary.n, found.effect, found.p,
        comparison.p_holm, comparison.detectable,
    )  # fmt: skip
    return dict(zip(DIFFERENCE, numbers, strict=True))

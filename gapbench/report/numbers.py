"""Frames of cells and comparisons in full precision."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pandas as pd

from gapbench.analysis.cells import COSTS, Cell
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import Evaluation, claim_word
from gapbench.analysis.looks import ALPHA
from gapbench.report.tables import against_word

Line = dict[str, Any]

DIFFERENCE = (
    "difference", "difference_half_width", "difference_n", "against_n", "p", "look", "detectable",
    "seeds_needed",
)  # fmt: skip
CELL = (
    "n", "planned", "diverged", "mean", "sd", "half_width", "published", "published_task",
    "published_source", "baseline", *DIFFERENCE, "verdict", "test_mean", "loss", *COSTS, "values",
)  # fmt: skip
ANSWER = (
    "ablation", "task", "question", "row", "against", "column_field", "column", "value", "margin",
    *DIFFERENCE, "diverged", "answer",
)  # fmt: skip


def cells_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return a frame with one line per cell and all its numbers; `look`: seeds of the last look."""
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
                line |= {"baseline": comparison.reference.name, **_difference(comparison)}
                line["verdict"] = against_word(comparison) if comparison.difference else None
            lines.append(line)
    return pd.DataFrame(lines, columns=[*head, *CELL], dtype=object)


def answers_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return a frame with one line per comparison that answers the ablation's questions."""
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
        numbers |= asdict(cell.summary)
    if cell.beside is not None:
        numbers["test_mean"] = cell.beside.mean
    if cell.loss is not None:
        numbers["loss"] = cell.loss.mean
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
    width = found.half_width(ALPHA)
    numbers = (
        found.mean, None if math.isinf(width) else width, *comparison.n, comparison.p,
        comparison.answer.n, comparison.detectable, comparison.needed,
    )  # fmt: skip
    return dict(zip(DIFFERENCE, numbers, strict=True))

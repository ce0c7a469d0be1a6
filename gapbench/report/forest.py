"""The answers as a forest plot: per comparison its interval, with the answer at the right."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.evaluation import Answer, claim_word
from gapbench.analysis.looks import ALPHA
from gapbench.analysis.records import text_of
from gapbench.report.canvas import Drawn, looks
from gapbench.report.drawing import files_of
from gapbench.report.notes import points

WIDTH = 4.6  # inches: as wide as a phone, where letters of 9 points can be read
INTERVAL, WORDS = 0.26, 0.14  # inches of a comparison: its interval, and each line of its name
MOST_LETTERS = 48  # of a name in one line
SIZE = 8.5  # points
RESOLVED = ("supported", "contradicted")


def forest_files(answers: Sequence[Answer]) -> dict[str, bytes] | None:
    """Return the picture as png and svg, and its data as csv; None if nothing has run."""
    return files_of(lambda: forest(answers))


def forest(answers: Sequence[Answer]) -> Drawn | None:
    """Draw every comparison that has a difference, task by task, in the order of the claims.

    The right side is in favour of the claim. The shaded range is the margin of equivalence. A claim
    of being as good within a margin has a dotted line at its bound. A hollow mark is the published
    difference.
    """
    lines = [(answer, c) for answer in answers for c in answer.comparisons if c.difference]
    tasks = list(dict.fromkeys(answer.results.task for answer, _ in lines))
    if not lines:
        return None
    own = [[line for line in lines if line[0].results.task == task] for task in tasks]
    heights = [sum(_height(comparison) for _, comparison in some) for some in own]
    figure = Figure(figsize=(WIDTH, 0.8 * len(tasks) + sum(heights)), layout="constrained")
    panels = figure.subplots(len(tasks), squeeze=False, height_ratios=[h + 0.4 for h in heights])
    for ax, some in zip(panels[:, 0], own, strict=True):
        _panel(ax, some)
    return figure, _frame(lines)


def _name(comparison: Comparison) -> str:
    """Return the name of a comparison, in lines that leave room for the answer."""
    at = f", {100 * comparison.column:g} % sparse" if isinstance(comparison.column, float) else ""
    at = at or f", {text_of(comparison.column)}"
    parts = (comparison.row.name, f"− {comparison.reference.name}{at}")
    return ("\n" if sum(map(len, parts)) > MOST_LETTERS else " ").join(parts)


def _height(comparison: Comparison) -> float:
    return INTERVAL + WORDS * (1 + _name(comparison).count("\n"))


def _panel(ax: Axes, lines: Sequence[tuple[Answer, Comparison]]) -> None:
    results = lines[0][0].results
    unit, margin = points(results.metric.unit), lines[0][1].metric.margin
    ax.axvspan(-margin, margin, color="0.9", lw=0)
    ax.axvline(0, color="0.4", lw=0.8)
    end = 0.0
    for _, comparison in lines:
        end += _height(comparison)
        _line(ax, end - INTERVAL / 2, comparison)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylim(end, 0)  # inches, from the top
    bound = max([margin, *(comparison.margin or 0.0 for _, comparison in lines)])
    ax.set_xlim(*_limits([numbers_of(comparison) for _, comparison in lines], bound))
    if not results.metric.higher_is_better:
        ax.invert_xaxis()  # the right side stays in favour of the claim
    compared = [comparison for _, comparison in lines]
    marks = ["shaded: equivalent"]
    marks += ["dotted: margin of as good"] * any(one.margin for one in compared)
    marks += ["○: published"] * any(published_difference(one) is not None for one in compared)
    ax.set_xlabel(f"difference of {results.value.replace('/', ' ')}, {unit}\n{'; '.join(marks)}")
    ax.set_title(results.task)


def _line(ax: Axes, place: float, comparison: Comparison) -> None:
    """Draw one comparison: its name and answer, and below them, at `place`, its interval."""
    mean, width, published = numbers_of(comparison)
    own = looks([comparison.row])[comparison.row.name]
    ax.errorbar([mean], [place], xerr=None if math.isinf(width) else [width], **own.mark())
    if published is not None:
        ax.plot([published], [place], "o", mfc="none", mec="0.3", ms=5)
    if comparison.margin:
        ax.plot([comparison.bound] * 2, [place - 0.1, place + 0.1], ":", color="0.3")
    told: dict[str, Any] = {"va": "bottom", "size": SIZE, "transform": ax.get_yaxis_transform()}
    above, word = place - INTERVAL / 2 + 0.02, claim_word(comparison)
    ax.text(0, above, _name(comparison), ha="left", **told)
    ax.text(1, above, word, ha="right", weight="bold" if word in RESOLVED else "normal", **told)


def _limits(
    numbers: Sequence[tuple[float, float, float | None]], margin: float
) -> tuple[float, float]:
    """Return limits of the axis for all marks, and intervals up to three times the median interval.

    A row with a failed seed may have an interval so wide that all other intervals become points.
    """
    known = [width for _, width, _ in numbers if math.isfinite(width)]
    most = 3 * statistics.median(known) if known else 0.0
    ends = [margin, -margin, *(other for *_, other in numbers if other is not None)]
    for mean, width, _ in numbers:
        ends += [mean - min(width, most), mean + min(width, most)]
    room = 0.05 * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max(ends) + room


def numbers_of(comparison: Comparison) -> tuple[float, float, float | None]:
    """Return the difference, the half-width of its 95 % interval, and the published difference."""
    found = comparison.difference
    assert found is not None  # lines without one are not drawn
    return found.mean, found.half_width(ALPHA), published_difference(comparison)


def published_difference(comparison: Comparison) -> float | None:
    """Return the difference of the published values, where both are of one task."""
    papers = []
    for row in (comparison.row, comparison.reference):
        column = 0.0 if row.method == "dense" else comparison.column
        known = [cell.published for cell in row.cells if cell.published is not None]
        papers += [paper for paper in known if paper.sparsity == column][:1]
    if len(papers) < 2 or papers[0].task != papers[1].task:
        return None
    return float(papers[0].value) - float(papers[1].value)


def _frame(lines: Sequence[tuple[Answer, Comparison]]) -> pd.DataFrame:
    names = ("difference", "half_width", "published")
    return pd.DataFrame(
        {
            "ablation": answer.results.ablation,
            "task": answer.results.task,
            "question": answer.claim.asks,
            "row": comparison.row.name,
            "against": comparison.reference.name,
            "column": comparison.column,
            **dict(zip(names, numbers_of(comparison), strict=True)),
            "answer": claim_word(comparison),
        }
        for answer, comparison in lines
    )

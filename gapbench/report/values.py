"""What is drawn of cells: means, or differences to the baseline where means lie too near."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapbench.analysis.cells import Results
from gapbench.analysis.looks import ALPHA
from gapbench.report import notes
from gapbench.report.canvas import Evidence, share_y, tell
from gapbench.report.forest import published_difference
from gapbench.report.tables import settings_words, value_head

POINT = 1.0  # of the metric: rows that lie within it cannot be told apart
FAR = 3.0  # points to the baseline: context farther away would press the others together again
LETTERS = 36  # of a line at an axis


@dataclass(frozen=True)
class Scale:
    """What is drawn of every cell.

    Attributes:
        frame: what the CSV has.
        drawn: the same, with differences as mean, half_width and published if they are drawn.
        axis: what the value's axis says.
        caption: what a caption adds, if differences are drawn.
        left_out: the context that is too far away to be drawn.
    """

    frame: pd.DataFrame
    drawn: pd.DataFrame
    axis: str
    caption: str = ""
    left_out: str = ""

    def label(self, made: Figure, axes: Sequence[Axes]) -> None:
        """Say at the axes and above the figure what is drawn, with a line at no difference."""
        if self.caption:
            made.set_label(self.caption)
            for ax in axes:
                ax.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        if self.left_out:
            tell(made, self.left_out)
        share_y(axes)
        axes[0].set_ylabel(self.axis)


def points(results: Results) -> pd.DataFrame:
    """Return one row a cell that has run: mean, interval, cost, and the published value."""
    return pd.DataFrame(
        {
            "row": row.name,
            "method": row.method,
            "column": column,
            "n": cell.summary.n,
            "mean": cell.summary.mean,
            "half_width": cell.summary.half_width,
            "train_flops_ratio": cell.costs.get("cost/train_flops_ratio"),
            "epochs": cell.costs.get("run/epochs"),
            "published": _published(results, cell),
        }
        for row, column, cell in results.cells()
        if cell.summary is not None
    )


def _published(results: Results, cell: Any) -> float | None:
    """Return a published value where it is of the same task: others share no axis with ours."""
    same = cell.published is not None and cell.published.task == results.task
    return float(cell.published.value) if same else None


def value_words(results: Results, frame: pd.DataFrame) -> str:
    """Return what the value's axis says, with what its bars are."""
    bars = "\nmean ± 95 % t-interval" if frame["half_width"].notna().any() else ""
    return value_head(results) + bars


def absolute(evidence: Evidence) -> Scale:
    """Return the means to draw."""
    frame = points(evidence.results)
    return Scale(frame, frame, "" if frame.empty else value_words(evidence.results, frame))


def scale_of(evidence: Evidence, shown: Collection[str] | None = None) -> Scale:
    """Return the means to draw, or their differences to the baseline with Welch's intervals.

    Differences are drawn where, in most columns, the rows that claims compare lie within a point;
    where no claim compares any, all rows. Other rows are context.

    Args:
        evidence: evidence of one task.
        shown: names of the rows that the figure shows; None: the rows of a panel of lines.
    """
    means, results = absolute(evidence), evidence.results
    if means.frame.empty:
        return means
    frame = means.frame.merge(_differences(evidence), how="left", on=["row", "column"])
    shown = {row.name for row in evidence.rows} if shown is None else set(shown)
    first = shown & evidence.first or shown
    if not _near(frame[frame["row"].isin(first)]):
        return means
    far = {
        str(row): max(own, key=abs, default=math.nan)
        for row, own in frame.dropna(subset="difference").groupby("row")["difference"]
    }
    far = {row: far.get(row, math.nan) for row in dict.fromkeys(frame["row"])}
    far = {row: d for row, d in far.items() if row in shown - first and not abs(d) <= FAR}
    drawn = frame.assign(
        mean=frame["difference"],
        half_width=frame["difference_half_width"],
        published=frame["published_difference"],
    ).dropna(subset="mean")
    names = {one.reference.name for one in evidence.to_baseline}
    name = names.pop() if len(names) == 1 else settings_words(evidence.baseline)
    unit = notes.points(results.metric.unit)
    axis = f"{value_head(results).partition(' (')[0]}: difference to {name}, {unit}"
    bars = "with 95 % Welch t-intervals" if drawn["half_width"].notna().any() else ""
    told = ", ".join(row if math.isnan(d) else f"{row} ({d:+.1f})" for row, d in far.items())
    left_out = f"not on this axis: {told}" if far else ""
    caption = f"In place of means, the figure shows differences to {name}, in {unit} {bars}".strip()
    return Scale(
        frame,
        drawn[~drawn["row"].isin(far)].copy(),
        "\n".join(filter(None, (*textwrap.wrap(axis, LETTERS), bars))),
        f"{'; '.join(filter(None, (caption, left_out)))}.",
        left_out,
    )


def _differences(evidence: Evidence) -> pd.DataFrame:
    """Return the difference of every cell that has one; a baseline's own is 0."""
    lines: dict[tuple[str, object], tuple[float, float, float | None]] = {}
    for one in evidence.to_baseline:
        if one.difference is not None:
            lines[one.reference.name, one.column] = (0.0, math.nan, math.nan)
    for one in evidence.to_baseline:
        if one.difference is not None:
            half = one.difference.half_width(ALPHA)
            half = half if math.isfinite(half) else math.nan
            numbers = (one.difference.mean, half, published_difference(one))
            lines[one.row.name, one.column] = numbers
    names = ["row", "column", "difference", "difference_half_width", "published_difference"]
    return pd.DataFrame([(*at, *numbers) for at, numbers in lines.items()], columns=names)


def _near(compared: pd.DataFrame) -> bool:
    """Say whether rows lie within a point in most columns, and all have a difference there."""
    by_column = compared.groupby("column", sort=False)
    spread = by_column["mean"].max() - by_column["mean"].min()
    known = compared["difference"].notna().groupby(compared["column"], sort=False).all()
    several = compared["row"].nunique() > 1
    return bool(several and ((spread <= POINT) & known).mean() > 0.5)

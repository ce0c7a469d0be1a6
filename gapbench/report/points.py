"""Means or differences with their intervals as points and lines, which several figures show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    Look,
    legend_below,
    legend_names,
    looks,
    panels,
    plain_decades,
    tell_left_out,
)
from gapbench.report.values import absolute, scale_of

# in the colour of a row, and in a shape that no method has
PUBLISHED: dict[str, Any] = {"marker": "x", "markersize": 6, "linestyle": "none"}


def line(ax: Axes, x: pd.Series, own: pd.DataFrame, look: Look, label: str) -> None:
    """Draw the means of the rows of one series over `x`, with intervals."""
    half = None if own["half_width"].isna().all() else own["half_width"].astype(float)
    ax.plot(x, own["mean"], **look.line())
    ax.errorbar(x, own["mean"], yerr=half, label=label, **look.mark())


def band(ax: Axes, point: Any, look: Look, label: str) -> None:
    """Draw a row without a position on the x axis as a horizontal line, with its interval."""
    ax.axhline(point["mean"], color=look.colour, linewidth=1, label=label)
    if not pd.isna(point["half_width"]):
        low, high = point["mean"] - point["half_width"], point["mean"] + point["half_width"]
        ax.axhspan(low, high, color=look.colour, alpha=0.08, linewidth=0)


def against(evidence: Evidence, x: str, label: str, front: bool) -> Drawn | None:
    """Draw means against a cost, one panel per column.

    Args:
        evidence: evidence of one task.
        x: column of `points` with the cost.
        label: label of the x axis.
        front: whether the Pareto front of the means is drawn too.
    """
    results = evidence.results
    # a front is of all rows, and not of differences to several baselines
    scale = absolute(evidence) if front else scale_of(evidence)
    frame = scale.drawn if scale.drawn.empty else scale.drawn.dropna(subset=x)
    if frame.empty:
        return None
    if front:
        by_column = frame.groupby("column", sort=False)
        fronts = [pareto(own, x, results.metric.higher_is_better) for _, own in by_column]
        frame["on_front"] = frame.index.isin([at for best in fronts for at in best.index])
    made, axes, shown = panels(evidence.columns(frame), width=3.6, height=3.2)
    rows = [row.name for row in evidence.rows]
    look, names = looks(results.rows, evidence.first), legend_names(results)
    for ax, column in zip(axes, shown, strict=True):
        own = frame[(frame["column"] == column) & frame["row"].isin(rows)]
        for point in own.itertuples():
            at, name = [getattr(point, x)], str(point.row)
            ax.plot(at, [point.mean], label=names[name], **look[name].mark())
        _intervals(ax, x, own.dropna(subset="half_width"), look)
        if front:
            best = own[own["on_front"]].sort_values(x)
            ax.step(best[x], best["mean"], where="post", color="#bbbbbb", linewidth=1, zorder=0,
                    label="Pareto front of means" if ax is axes[-1] else None)  # fmt: skip
        ax.set_xscale("log")
        _widen(ax)
        plain_decades(ax.xaxis)
        ax.set_xlabel(label)
        ax.set_title(f"{results.column} {text_of(column)}")
    scale.label(made, axes)
    legend_below(made, axes)
    tell_left_out(made, evidence)
    return made, frame if front else scale.frame.dropna(subset=x)


def _widen(ax: Axes) -> None:
    """Widen a logarithmic x axis until it contains 1, 2 or 5 of a decade."""
    low, high = ax.get_xlim()
    if high < 2.5 * low:
        middle = (low * high) ** 0.5
        ax.set_xlim(middle / 1.6, middle * 1.6)


def _intervals(ax: Axes, x: str, own: pd.DataFrame, look: Mapping[str, Look]) -> None:
    """Draw all rows' intervals as one artist and their ends as two: many artists take seconds."""
    half = own["half_width"].astype(float)
    low, high = own["mean"] - half, own["mean"] + half
    colours = [look[row].colour for row in own["row"]]
    ax.vlines(own[x], low, high, colors=colours)
    for end in (low, high):
        ax.scatter(own[x], end, marker="_", s=16, linewidths=1, c=colours)


def pareto(frame: pd.DataFrame, x: str, higher_is_better: bool = True) -> pd.DataFrame:
    """Return the Pareto front: rows that no row beats in cost and mean, by increasing cost."""
    sign = 1 if higher_is_better else -1
    kept, best = [], float("-inf")
    order = frame.assign(gain=sign * frame["mean"]).sort_values(
        [x, "gain"], ascending=[True, False], kind="stable"
    )
    for point in order.itertuples():
        if point.gain > best:
            best = point.gain
            kept.append(point.Index)
    return frame.loc[kept]

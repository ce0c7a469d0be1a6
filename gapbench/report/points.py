"""Drawing of rows that several figures share: lines, bands, ticks, and means against a cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    Look,
    legend_below,
    panels,
    plain_decades,
    tell_left_out,
)
from gapbench.report.values import absolute, scale_of


def against(evidence: Evidence, x: str, label: str, front: bool) -> Drawn | None:
    """Draw means, and with `front` their Pareto front, against the cost that `points` calls `x`."""
    # a front is of all rows, and not of differences to several baselines
    scale = absolute(evidence) if front else scale_of(evidence)
    frame = scale.drawn if scale.drawn.empty else scale.drawn.dropna(subset=x)
    if frame.empty:
        return None
    if front:
        higher = evidence.results.metric.higher_is_better
        fronts = [pareto(own, x, higher) for _, own in frame.groupby("column", sort=False)]
        frame["on_front"] = frame.index.isin([at for best in fronts for at in best.index])
    made, axes, shown = panels(evidence.columns(frame), width=3.6, height=3.2)
    rows = [row.name for row in evidence.rows]
    for ax, column in zip(axes, shown, strict=True):
        own = frame[(frame["column"] == column) & frame["row"].isin(rows)]
        for point in own.itertuples():
            at, name = [getattr(point, x)], str(point.row)
            ax.plot(at, [point.mean], label=evidence.names[name], **evidence.look[name].mark())
        _intervals(ax, x, own.dropna(subset="half_width"), evidence)
        if front:
            best = own[own["on_front"]].sort_values(x)
            ax.step(best[x], best["mean"], where="post", color="#bbbbbb", linewidth=1, zorder=0,
                    label="Pareto front of means" if ax is axes[-1] else None)  # fmt: skip
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        if high < 2.5 * low:  # until the axis contains 1, 2 or 5 of a decade
            middle = (low * high) ** 0.5
            ax.set_xlim(middle / 1.6, middle * 1.6)
        plain_decades(ax.xaxis)
        ax.set(xlabel=label, title=evidence.at(column))
    scale.label(made, axes)
    legend_below(made, axes)
    tell_left_out(made, evidence)
    return made, frame if front else scale.frame.dropna(subset=x)


def _intervals(ax: Axes, x: str, own: pd.DataFrame, evidence: Evidence) -> None:
    """Draw all rows' intervals as one artist and their ends as two: many artists take seconds."""
    half = own["half_width"].astype(float)
    low, high = own["mean"] - half, own["mean"] + half
    colours = [evidence.look[row].colour for row in own["row"]]
    ax.vlines(own[x], low, high, colors=colours)
    for end in (low, high):
        ax.scatter(own[x], end, marker="_", s=16, linewidths=1, c=colours)


def pareto(frame: pd.DataFrame, x: str, higher_is_better: bool = True) -> pd.DataFrame:
    """Return the Pareto front: rows that no row beats in cost and mean, by increasing cost."""
    gain = frame["mean"] if higher_is_better else -frame["mean"]
    order = frame.assign(gain=gain).sort_values([x, "gain"], ascending=[True, False], kind="stable")
    before = order["gain"].cummax().shift(fill_value=float("-inf"))
    return frame.loc[order.index[order["gain"] > before]]


def line(ax: Axes, x: pd.Series, own: pd.DataFrame, look: Look, label: str) -> None:
    """Draw the means of the rows of one series over `x`, with intervals."""
    half = None if own["half_width"].isna().all() else own["half_width"].astype(float)
    ax.plot(x, own["mean"], **look.line())
    ax.errorbar(x, own["mean"], yerr=half, label=label, **look.mark())


def band(ax: Axes, point: Mapping[str, Any], look: Look, label: str) -> None:
    """Draw a row without a position on the x axis as a horizontal line, with its interval."""
    mean, half = point["mean"], point["half_width"]
    ax.axhline(mean, color=look.colour, linewidth=1, label=label)
    if not pd.isna(half):
        ax.axhspan(mean - half, mean + half, color=look.colour, alpha=0.08, linewidth=0)


def ticks(axis: Axis, places: Sequence[float], words: Callable[[float], str]) -> None:
    """Put ticks at these places alone."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda place, _: words(place)))

"""Means against the number of partitions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gapbench.analysis.cells import FORMS, Cell, Results, Row, names_of
from gapbench.analysis.records import is_given, text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    Look,
    figure,
    looks,
    panels,
    partly,
    shown,
    tell_most,
)
from gapbench.report.ends import name_lines
from gapbench.report.points import band, line
from gapbench.report.values import scale_of


@figure("accuracy_vs_partitions", reads=())
def accuracy_vs_partitions(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds against κ; rows without partitions are bands."""
    results = evidence.results
    run = _series(results, {row.name for row in evidence.run})
    first = evidence.first
    chosen = evidence.most(list(run), lambda name: any(row.name in first for row in run[name]))
    series = {name: run[name] for name in chosen}
    names = [row.name for rows in series.values() for row in rows]
    scale = scale_of(evidence, names)
    frame = scale.frame
    given = {row.name: row.settings.get("partitions") for row in results.rows}
    counts = {name: count for name, count in given.items() if is_given(count)}
    if frame.empty or not frame["row"].isin(counts).any():
        return None
    for own in (frame, scale.drawn):
        own["partitions"] = own["row"].map(counts)
    columns = evidence.columns(frame)
    made, axes, drawn = panels(columns, width=3.6, height=3.2)
    look = looks(results.rows, first)
    points = scale.drawn[scale.drawn["row"].isin(names)]
    for ax, column in zip(axes, drawn, strict=True):
        _panel(ax, series, look, points[points["column"] == column])
        ax.set_title(f"{results.column} {text_of(column)}")
    scale.label(made, axes)
    tell_most(made, len(series), len(run), "series")
    name_lines(made, axes)
    return made, frame


def _panel(
    ax: Axes, series: Mapping[str, Sequence[Row]], look: Mapping[str, Look], frame: pd.DataFrame
) -> None:
    for name, rows in series.items():
        own = frame[frame["row"].isin([row.name for row in rows])].sort_values("partitions")
        first = look[rows[0].name]
        if own["partitions"].notna().any():
            line(ax, own["partitions"], own, first, name)
        elif not own.empty:
            band(ax, own.iloc[0], first, name)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(sorted(frame["partitions"].dropna().unique())))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    ax.set_xlabel("partitions κ")


def _series(results: Results, run: Collection[str]) -> dict[str, list[Row]]:
    """Return the rows by name of series: series differ in other fields than κ, and have run.

    Args:
        results: results of one task.
        run: names of the rows that have run.
    """
    every = range(len(results.fields))
    kept = [at for at in every if results.fields[at] != "partitions"] or list(every)
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in results.rows:
        series.setdefault(tuple(row.fields[at] for at in kept), []).append(row)
    names = names_of(series, [results.fields[at] for at in kept])
    return {
        shown(names[fields]) + partly(_cells(results, rows)): rows
        for fields, rows in series.items()
        if any(row.name in run for row in rows)
    }


def _cells(results: Results, rows: Sequence[Row]) -> dict[str, Cell]:
    """Return the cells of all rows by κ, and by column if there are several columns."""
    cells = {}
    for row in rows:
        for column, cell in zip(results.columns, row.cells, strict=True):
            at = [text_of(column)] if len(results.columns) > 1 else []
            count = text_of(row.settings["partitions"])
            at += [FORMS["partitions"].format(count)] if len(rows) > 1 else []
            cells[", ".join(at)] = cell
    return cells

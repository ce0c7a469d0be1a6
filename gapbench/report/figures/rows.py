"""The mean of each row: alone, against sparsity, and against the number of partitions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gapbench.analysis.cells import FORMS, Cell, Results, Row, names_of
from gapbench.analysis.records import is_given, text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    Look,
    figure,
    panels,
    partly,
    shown,
    tell_left_out,
    tell_most,
)
from gapbench.report.ends import name_lines
from gapbench.report.values import points, scale_of, value_words

# in the colour of a row, and in a shape that no method has
PUBLISHED: dict[str, Any] = {"marker": "x", "markersize": 6, "linestyle": "none"}


@figure("means", reads=())
def means(evidence: Evidence) -> Drawn | None:
    """Draw the mean of every row with its 95 % t-interval over seeds, and each seed as a dot."""
    results, look = evidence.results, evidence.look
    frame = points(results)
    if frame.empty:
        return None
    count = len(results.rows)
    made, axes, drawn = panels(results.columns, width=4.6, height=0.9 + 0.24 * count, across=2)
    for ax, column in zip(axes, drawn, strict=True):
        for line, row in enumerate(results.rows):
            cell = row.cells[results.columns.index(column)]
            if cell.summary is None:
                continue
            seeds = list(cell.values.values())
            ax.plot(seeds, [line] * len(seeds), ".", color=look[row.name].colour, alpha=0.4)
            half = cell.summary.half_width
            ax.errorbar([cell.summary.mean], [line], xerr=half, **look[row.name].mark())
        ax.set_yticks(range(count), [evidence.names[row.name] for row in results.rows])
        ax.set_ylim(count - 0.5, -0.5)
        ax.set(xlabel=value_words(results, frame), title=evidence.at(column))
    return made, frame


@figure("accuracy_vs_sparsity", reads=())
def accuracy_vs_sparsity(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds, rows side by side around each sparsity."""
    results, look, names = evidence.results, evidence.look, evidence.names
    scale = scale_of(evidence)
    frame = scale.drawn
    if results.column != "sparsity" or frame.empty:
        return None
    made = Figure(figsize=(6.4, 3.9))
    ax = made.add_subplot()
    # logarithmic in density, from dense to sparse; the ticks show sparsity
    densities = [1 - float(column) for column in results.columns]  # type: ignore[arg-type]
    ax.set_xscale("log")
    ax.set_xlim(max(densities) * 1.4, min(densities) / 1.4)
    _ticks(ax.xaxis, densities, lambda density: f"{100 * (1 - density):g} %")
    ax.set_xlabel("sparsity")
    rows = [row for row in evidence.rows if row.name in set(frame["row"])]
    # one value everywhere, but a difference for each sparsity
    dense = "dense" if results.repeated and not scale.caption else None
    sparse = [row.name for row in rows if row.method != dense]
    for row in rows:
        own = frame[frame["row"] == row.name]
        if row.method == dense:
            _band(ax, own.iloc[0], look[row.name], names[row.name])
            continue
        spread = 1 + 0.02 * (sparse.index(row.name) - (len(sparse) - 1) / 2)
        x = (1 - own["column"].astype(float)) * spread
        _line(ax, x, own, look[row.name], names[row.name])
        ax.plot(x, own["published"].astype(float), color=look[row.name].colour, **PUBLISHED)
    if frame["published"].notna().any():
        ax.plot([], [], color="#777777", label="published", **PUBLISHED)
    scale.label(made, [ax])
    tell_left_out(made, evidence)
    name_lines(made, [ax])
    return made, scale.frame


@figure("accuracy_vs_partitions", reads=())
def accuracy_vs_partitions(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds against κ; rows without partitions are bands."""
    results, first = evidence.results, evidence.first
    run = _series(results, {row.name for row in evidence.run})
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
    made, axes, drawn = panels(evidence.columns(frame), width=3.6, height=3.2)
    chosen_rows = scale.drawn[scale.drawn["row"].isin(names)]
    for ax, column in zip(axes, drawn, strict=True):
        there = chosen_rows[chosen_rows["column"] == column]
        for name, rows in series.items():
            own = there[there["row"].isin([row.name for row in rows])].sort_values("partitions")
            look = evidence.look[rows[0].name]
            if own["partitions"].notna().any():
                _line(ax, own["partitions"], own, look, name)
            elif not own.empty:
                _band(ax, own.iloc[0], look, name)
        ax.set_xscale("log", base=2)
        _ticks(ax.xaxis, sorted(there["partitions"].dropna().unique()), "{:g}".format)
        ax.set(xlabel="partitions κ", title=evidence.at(column))
    scale.label(made, axes)
    tell_most(made, len(series), len(run), "series")
    name_lines(made, axes)
    return made, frame


def _series(results: Results, run: Collection[str]) -> dict[str, list[Row]]:
    """Return the rows by name of series: series differ in other fields than κ, and have run."""
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


def _line(ax: Axes, x: pd.Series, own: pd.DataFrame, look: Look, label: str) -> None:
    """Draw the means of the rows of one series over `x`, with intervals."""
    half = None if own["half_width"].isna().all() else own["half_width"].astype(float)
    ax.plot(x, own["mean"], **look.line())
    ax.errorbar(x, own["mean"], yerr=half, label=label, **look.mark())


def _band(ax: Axes, point: Mapping[str, Any], look: Look, label: str) -> None:
    """Draw a row without a position on the x axis as a horizontal line, with its interval."""
    mean, half = point["mean"], point["half_width"]
    ax.axhline(mean, color=look.colour, linewidth=1, label=label)
    if not pd.isna(half):
        ax.axhspan(mean - half, mean + half, color=look.colour, alpha=0.08, linewidth=0)


def _ticks(axis: Axis, places: Sequence[float], words: Callable[[float], str]) -> None:
    """Put ticks at these places alone."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda place, _: words(place)))

"""What the number of partitions does to the result."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gapbench.report.cells import Results, Row
from gapbench.report.figures import Drawn, Evidence, figure, legend_below, looks, panels, share_y
from gapbench.report.plots.performance import band, points, value_words
from gapbench.report.records import NOTHING, is_given, text_of


@figure("accuracy_vs_partitions", reads=())
def accuracy_vs_partitions(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds against κ; rows without partitions are bands."""
    results = evidence.results
    frame = points(results)
    counts = {row.name: row.settings.get("partitions") for row in results.rows}
    counts = {name: count for name, count in counts.items() if is_given(count)}
    if frame.empty or not frame["row"].isin(counts).any():
        return None
    frame["partitions"] = frame["row"].map(counts)
    columns = [column for column in results.columns if column in set(frame["column"])]
    made, axes, shown = panels(columns, width=3.6, height=3.2)
    for ax, column in zip(axes, shown, strict=True):
        _panel(ax, results, frame[frame["column"] == column])
        ax.set_title(f"{results.column} {text_of(column)}")
    share_y(axes)
    axes[0].set_ylabel(value_words(results, frame))
    legend_below(made, axes)
    return made, frame


def _panel(ax: Axes, results: Results, frame: pd.DataFrame) -> None:
    look = looks(results.rows)
    means = frame.set_index("row")
    for name, rows in _series(results).items():
        own = means[means.index.isin([row.name for row in rows])]
        own = own.sort_values("partitions")
        if own.empty:
            continue
        first = look[rows[0].name]
        if own["partitions"].isna().all():
            band(ax, own.iloc[0], first, name)
            continue
        half = None if own["half_width"].isna().all() else own["half_width"].astype(float)
        ax.plot(own["partitions"], own["mean"], **first.line())
        ax.errorbar(own["partitions"], own["mean"], yerr=half, label=name, **first.mark())
    ticks = sorted(frame["partitions"].dropna().unique())
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    ax.set_xlabel("partitions κ")


def _series(results: Results) -> dict[str, Sequence[Row]]:
    """Return the rows by what they are apart from their number of partitions."""
    series: dict[str, list[Row]] = {}
    for row in results.rows:
        parts = zip(results.fields, row.fields, strict=True)
        shared = [text for field, text in parts if field != "partitions"]
        name = ", ".join(text for text in shared if text != NOTHING)
        series.setdefault(name or row.name, []).append(row)
    return dict(series)

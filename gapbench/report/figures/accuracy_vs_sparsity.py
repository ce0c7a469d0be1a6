"""Means against sparsity."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    legend_names,
    looks,
    tell_left_out,
)
from gapbench.report.ends import name_lines
from gapbench.report.points import PUBLISHED, band, line
from gapbench.report.values import scale_of


@figure("accuracy_vs_sparsity", reads=())
def accuracy_vs_sparsity(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds, rows side by side around each sparsity."""
    results = evidence.results
    scale = scale_of(evidence)
    frame = scale.drawn
    if results.column != "sparsity" or frame.empty:
        return None
    made = Figure(figsize=(6.4, 3.9))
    ax = made.add_subplot()
    _density_axis(ax, [float(column) for column in results.columns])  # type: ignore[arg-type]
    look, names = looks(results.rows, evidence.first), legend_names(results)
    rows = [row for row in evidence.rows if row.name in set(frame["row"])]
    # one value everywhere, but a difference for each sparsity
    dense = "dense" if results.repeated and not scale.caption else None
    sparse = [row.name for row in rows if row.method != dense]
    for row in rows:
        own = frame[frame["row"] == row.name]
        if row.method == dense:
            band(ax, own.iloc[0], look[row.name], names[row.name])
            continue
        spread = 1 + 0.02 * (sparse.index(row.name) - (len(sparse) - 1) / 2)
        x = (1 - own["column"].astype(float)) * spread
        line(ax, x, own, look[row.name], names[row.name])
        ax.plot(x, own["published"].astype(float), color=look[row.name].colour, **PUBLISHED)
    if frame["published"].notna().any():
        ax.plot([], [], color="#777777", label="published", **PUBLISHED)
    scale.label(made, [ax])
    tell_left_out(made, evidence)
    name_lines(made, [ax])
    return made, scale.frame


def _density_axis(ax: Axes, sparsities: Sequence[float]) -> None:
    """Make the x axis logarithmic in density, from dense to sparse; the ticks show sparsity."""
    densities = [1 - sparsity for sparsity in sparsities]
    ax.set_xscale("log")
    ax.set_xlim(max(densities) * 1.4, min(densities) / 1.4)
    ax.xaxis.set_major_locator(FixedLocator(densities))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{100 * (1 - density):g} %"))
    ax.set_xlabel("sparsity")

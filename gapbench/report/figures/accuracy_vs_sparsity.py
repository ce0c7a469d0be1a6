"""Means against sparsity."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    tell_left_out,
)
from gapbench.report.ends import name_lines
from gapbench.report.points import band, line, ticks
from gapbench.report.values import scale_of

# in the colour of a row, and in a shape that no method has
PUBLISHED: dict[str, Any] = {"marker": "x", "markersize": 6, "linestyle": "none"}


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
    ticks(ax.xaxis, densities, lambda density: f"{100 * (1 - density):g} %")
    ax.set_xlabel("sparsity")
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

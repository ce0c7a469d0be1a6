"""The share of weights that have ever been active."""

from __future__ import annotations

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    legend_names,
    looks,
    panels,
    share_y,
    tell_left_out,
)
from gapbench.report.ends import name_lines


@figure("coverage", reads=("epoch",))
def coverage(evidence: Evidence) -> Drawn | None:
    """Draw the share of prunable weights that has ever been active, over epochs.

    For P-GaP the figure shows the largest share of all branches: until the merge, each branch
    counts its own partition.
    """
    results, curves = evidence.results, evidence.histories.curves
    frame = curves[["row", "column", "epoch", "coverage"]].dropna(subset="coverage")
    if frame.empty:
        return None
    frame = frame.groupby(["row", "column", "epoch"], sort=False, as_index=False).mean()
    frame["coverage"] = frame.groupby(["row", "column"], sort=False)["coverage"].cummax()
    columns = evidence.columns(frame)
    made, axes, shown = panels(columns, width=4.2, height=3.0, across=2)
    look, names = looks(results.rows, evidence.first), legend_names(results)
    for ax, column in zip(axes, shown, strict=True):
        for row in evidence.rows:
            own = frame[(frame["row"] == row.name) & (frame["column"] == column)]
            if len(own):
                ax.plot(own["epoch"], own["coverage"], label=names[row.name],
                        **look[row.name].line())  # fmt: skip
        ax.set_ylim(0, 1.03)
        ax.set_xlabel("machine-epochs")
        ax.set_title(f"{results.column} {text_of(column)}")
    share_y(axes)
    axes[0].set_ylabel("coverage of prunable weights")
    tell_left_out(made, evidence)
    name_lines(made, axes, across=2)
    return made, frame

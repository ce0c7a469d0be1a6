"""The share of weights that have ever been active."""

from __future__ import annotations

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    Look,
    figure,
    mean_over,
    panels,
    plot_rows,
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
    curves = evidence.histories.curves[["row", "column", "epoch", "coverage"]]
    frame = mean_over(curves.dropna(subset="coverage"), "row", "column", "epoch")
    if frame.empty:
        return None
    frame["coverage"] = frame.groupby(["row", "column"], sort=False)["coverage"].cummax()
    made, axes, shown = panels(evidence.columns(frame), width=4.2, height=3.0, across=2)
    for ax, column in zip(axes, shown, strict=True):
        there = frame[frame["column"] == column]
        plot_rows(ax, evidence, there, "epoch", "coverage", Look.line)
        ax.set_ylim(0, 1.03)
        ax.set(xlabel="machine-epochs", title=evidence.at(column))
    share_y(axes)
    axes[0].set_ylabel("coverage of prunable weights")
    tell_left_out(made, evidence)
    name_lines(made, axes, across=2)
    return made, frame

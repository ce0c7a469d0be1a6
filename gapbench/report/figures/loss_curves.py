"""Losses over epochs."""

from __future__ import annotations

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    Look,
    figure,
    mean_over,
    panels,
    plain_decades,
    plot_rows,
    tell_left_out,
)
from gapbench.report.ends import name_lines


@figure("loss_curves", reads=("epoch",))
def loss_curves(evidence: Evidence) -> Drawn | None:
    """Draw training and validation loss over epochs, means over seeds, in one column of the table.

    The column is the first column with completed trials; dense rows are in every column.
    """
    curves = evidence.histories.curves
    if curves.empty:
        return None
    losses = ["train/loss", "val/loss"]
    frame = mean_over(curves[["row", "column", "epoch", *losses]], "row", "column", "epoch")
    column = next(iter(evidence.columns(frame)))
    repeated = evidence.results.repeated
    dense = [row.name for row in evidence.rows if repeated and row.method == "dense"]
    there = frame[frame["row"].isin(dense) | (frame["column"] == column)]
    made, axes, shown = panels(losses, width=3.8, height=3.2)
    for ax, loss in zip(axes, shown, strict=True):
        plot_rows(ax, evidence, there.dropna(subset=loss), "epoch", loss, Look.line)
        ax.set_yscale("log")
        plain_decades(ax.yaxis)
        ax.set(xlabel="machine-epochs", title=f"{loss.replace('/', ' ')}, {evidence.at(column)}")
    tell_left_out(made, evidence)
    name_lines(made, axes, across=2)
    return made, frame

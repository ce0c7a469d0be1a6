"""Losses over epochs."""

from __future__ import annotations

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    legend_names,
    looks,
    panels,
    plain_decades,
    tell_left_out,
)
from gapbench.report.ends import name_lines


@figure("loss_curves", reads=("epoch",))
def loss_curves(evidence: Evidence) -> Drawn | None:
    """Draw training and validation loss over epochs, means over seeds, in one column of the table.

    The column is the first column with completed trials; dense rows are in every column.
    """
    results, curves = evidence.results, evidence.histories.curves
    losses = ["train/loss", "val/loss"]
    if curves.empty:
        return None
    keys = ["row", "column", "epoch"]
    frame = curves[[*keys, *losses]].groupby(keys, sort=False, as_index=False).mean()
    column = next(iter(evidence.columns(frame)))
    made, axes, _ = panels(range(2), width=3.8, height=3.2)
    look, names = looks(results.rows, evidence.first), legend_names(results)
    for row in evidence.rows:
        own = frame[frame["row"] == row.name]
        if not (results.repeated and row.method == "dense"):
            own = own[own["column"] == column]
        for ax, loss in zip(axes, losses, strict=True):
            known = own.dropna(subset=loss)
            if len(known):
                ax.plot(known["epoch"], known[loss], label=names[row.name],
                        **look[row.name].line())  # fmt: skip
    for ax, loss in zip(axes, losses, strict=True):
        ax.set_yscale("log")
        plain_decades(ax.yaxis)
        ax.set(
            xlabel="machine-epochs",
            title=f"{loss.replace('/', ' ')}, {results.column} {text_of(column)}",
        )
    tell_left_out(made, evidence)
    name_lines(made, axes, across=2)
    return made, frame

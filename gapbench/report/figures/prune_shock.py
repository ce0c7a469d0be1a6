"""The immediate cost of a prune in the validation metric."""

from __future__ import annotations

import pandas as pd

from gapbench.report.canvas import (
    MOST_PANELS,
    Drawn,
    Evidence,
    Look,
    figure,
    legend_below,
    mean_over,
    panels,
    plot_rows,
    share_y,
    tell_left_out,
)

# what the shock of a prune is drawn against, side by side
SHOCK = {"epoch": "machine-epochs", "mask_error": "relative mask error of the prune"}


@figure("prune_shock", reads=("change",))
def prune_shock(evidence: Evidence) -> Drawn | None:
    """Draw the immediate cost of each prune: the validation metric just after minus just before.

    Each mark is one prune of a row, averaged over seeds.
    """
    metric, changes = evidence.watched, evidence.histories.changes
    lines = [
        (c.row, c.column, c.epoch, c.after[metric] - c.before[metric], c.mask_error)
        for c in changes[changes["event"] == "prune"].itertuples()
        if isinstance(c.before, dict) and isinstance(c.after, dict)
        if metric in c.before and metric in c.after
    ]
    if not lines:
        return None
    frame = pd.DataFrame(lines, columns=["row", "column", "epoch", "change", "mask_error"])
    frame = mean_over(frame, "row", "column", "epoch")
    pairs = [(column, x) for column in evidence.columns(frame) for x in SHOCK]

    most = MOST_PANELS - 1
    made, axes, shown = panels(pairs, width=3.8, height=3.0, across=len(SHOCK), most=most)
    for ax, (column, x) in zip(axes, shown, strict=True):
        there = frame[frame["column"] == column].dropna(subset=x)
        plot_rows(ax, evidence, there, x, "change", Look.mark, alpha=0.6)
        ax.set(xlabel=SHOCK[x], title=evidence.at(column))
    share_y(axes)
    for ax in axes[:: len(SHOCK)]:
        ax.set_ylabel(f"change of validation {metric.split('/')[1]}")
    legend_below(made, axes, across=2)
    tell_left_out(made, evidence)
    return made, frame

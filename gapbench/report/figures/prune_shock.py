"""The immediate cost of a prune in the validation metric."""

from __future__ import annotations

import pandas as pd

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    MOST_PANELS,
    Drawn,
    Evidence,
    figure,
    legend_below,
    legend_names,
    looks,
    panels,
    share_y,
    tell_left_out,
    watched,
)

# what the shock of a prune is drawn against, side by side
SHOCK = {"epoch": "machine-epochs", "mask_error": "relative mask error of the prune"}


@figure("prune_shock", reads=("change",))
def prune_shock(evidence: Evidence) -> Drawn | None:
    """Draw the immediate cost of each prune: the validation metric just after minus just before.

    Each mark is one prune of a row, averaged over seeds.
    """
    results, metric = evidence.results, watched(evidence)
    changes = evidence.histories.changes
    lines = [
        (c.row, c.column, c.epoch, c.after[metric] - c.before[metric], c.mask_error)
        for c in changes[changes["event"] == "prune"].itertuples()
        if isinstance(c.before, dict) and isinstance(c.after, dict)
        if metric in c.before and metric in c.after
    ]
    if not lines:
        return None
    keys = ["row", "column", "epoch"]
    frame = pd.DataFrame(lines, columns=[*keys, "change", "mask_error"])
    frame = frame.groupby(keys, sort=False, as_index=False).mean()
    pairs = [(column, x) for column in evidence.columns(frame) for x in SHOCK]
    made, axes, shown = panels(
        pairs, width=3.8, height=3.0, across=len(SHOCK), most=MOST_PANELS - 1
    )
    look, names = looks(results.rows, evidence.first), legend_names(results)
    for ax, (column, x) in zip(axes, shown, strict=True):
        for row in evidence.rows:
            own = frame[(frame["row"] == row.name) & (frame["column"] == column)].dropna(subset=x)
            if len(own):
                ax.plot(own[x], own["change"], alpha=0.6, label=names[row.name],
                        **look[row.name].mark())  # fmt: skip
        ax.set(xlabel=SHOCK[x], title=f"{results.column} {text_of(column)}")
    share_y(axes)
    for ax in axes[:: len(SHOCK)]:
        ax.set_ylabel(f"change of validation {metric.split('/')[1]}")
    legend_below(made, axes, across=2)
    tell_left_out(made, evidence)
    return made, frame

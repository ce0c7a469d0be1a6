"""What happened while training: the metric over epochs, losses, and the shock of pruning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from operator import itemgetter

import pandas as pd
from matplotlib.axes import Axes

from gapbench.report.figures import (
    DASHES,
    MOST_PANELS,
    Drawn,
    Evidence,
    figure,
    legend_below,
    legend_names,
    looks,
    panels,
    plain_decades,
    share_y,
)
from gapbench.report.records import text_of

MOST_ROWS = 24
COLOURS = {"grow": "#f3e3c3", "tune": "#dcebf5"}  # of what a plan does
# what the shock of a prune is drawn against, side by side
SHOCK = {"epoch": "machine-epochs", "mask_error": "relative mask error of the prune"}


def watched(evidence: Evidence) -> str:
    """Return the validation metric that curves show: the task's own."""
    return f"val/{evidence.results.value.rpartition('/')[2]}"


@figure("anytime")
def anytime(evidence: Evidence) -> Drawn | None:
    """Draw the validation metric over epochs, with growing, fine-tuning and prunes marked.

    One panel a row; the model of each epoch is evaluated as it is, dense parts included.
    """
    results, metric = evidence.results, watched(evidence)
    curves = evidence.histories.curves.dropna(subset=metric)
    if curves.empty:
        return None
    keys = ["row", "column", "epoch"]
    frame = curves.groupby(keys, sort=False, as_index=False).agg({metric: "mean", "role": "first"})
    known = [row for row in results.rows if row.name in set(frame["row"])]
    made, axes, rows = panels(known, across=4, most=MOST_ROWS)
    look, names = looks(results.rows), legend_names(results)
    low, high = frame[metric].quantile(0.02), frame[metric].max()
    edge = 0.05 * (high - low) or 1.0
    for ax, row in zip(axes, rows, strict=True):
        own = frame[frame["row"] == row.name]
        columns = list(dict.fromkeys(own["column"]))
        for number, column in enumerate(columns):
            line = own[own["column"] == column]
            ax.plot(line["epoch"], line[metric], color=look[row.name].colour,
                    linestyle=DASHES[number % len(DASHES)],
                    label=text_of(column) if len(columns) > 1 else None)  # fmt: skip
        _shade(ax, own[own["column"] == columns[0]])
        for epoch in _prunes(evidence, row.name):
            ax.axvline(epoch, color="#999999", linewidth=0.5, linestyle=":", zorder=0)
        ax.set_ylim(low - edge, high + edge)
        ax.set_title(names[row.name], fontsize=8)
        ax.set_xlabel("machine-epochs")
        if len(columns) > 1:
            ax.legend(title=results.column, loc="lower right")
    axes[0].set_ylabel(f"validation {metric.rpartition('/')[2]}")
    words = ["shaded: growing (sand), fine-tuning (blue)", "dotted: prune", made.get_suptitle()]
    made.suptitle("; ".join(filter(None, words)), fontsize=8)
    return made, frame


def _shade(ax: Axes, curve: pd.DataFrame) -> None:
    spans = list(_spans(curve))
    for role, start, stop in spans if len(spans) > 1 else ():
        if role in COLOURS:
            ax.axvspan(start, stop, color=COLOURS[role], linewidth=0, zorder=0)


def _spans(curve: pd.DataFrame) -> Iterator[tuple[str, float, float]]:
    """Yield each role with its first epoch, from 0, and the one after its last."""
    start = 0.0
    epochs = zip(curve["role"], curve["epoch"], strict=True)
    for role, own in itertools.groupby(epochs, itemgetter(0)):
        stop = [float(epoch) for _, epoch in own][-1]
        yield role, start, stop
        start = stop


def _prunes(evidence: Evidence, row: str) -> list[float]:
    changes = evidence.histories.changes
    own = changes[(changes["row"] == row) & (changes["event"] == "prune")]
    first = own[own["key"] == own["key"].iloc[0]] if len(own) else own
    return [float(epoch) for epoch in first["epoch"]]


@figure("prune_shock", reads=("change",))
def prune_shock(evidence: Evidence) -> Drawn | None:
    """Draw what each prune costs at once: the validation metric just after minus just before."""
    results, metric = evidence.results, watched(evidence)
    changes = evidence.histories.changes
    lines = [
        (c.row, c.column, c.epoch, c.seed, c.after[metric] - c.before[metric], c.mask_error)
        for c in changes[changes["event"] == "prune"].itertuples()
        if isinstance(c.before, dict) and isinstance(c.after, dict)
        if metric in c.before and metric in c.after
    ]
    if not lines:
        return None
    fields = ["row", "column", "epoch", "seed", "change", "mask_error"]
    frame = pd.DataFrame(lines, columns=fields)
    columns = [column for column in results.columns if column in set(frame["column"])]
    pairs = [(column, x) for column in columns for x in SHOCK]
    made, axes, shown = panels(
        pairs, width=3.8, height=3.0, across=len(SHOCK), most=MOST_PANELS - 1
    )
    look, names = looks(results.rows), legend_names(results)
    for ax, (column, x) in zip(axes, shown, strict=True):
        for row in results.rows:
            own = frame[(frame["row"] == row.name) & (frame["column"] == column)].dropna(subset=x)
            if len(own):
                ax.plot(own[x], own["change"], alpha=0.6, label=names[row.name],
                        **look[row.name].mark())  # fmt: skip
        ax.set(xlabel=SHOCK[x], title=f"{results.column} {text_of(column)}")
    share_y(axes)
    for ax in axes[:: len(SHOCK)]:
        ax.set_ylabel(f"change of validation {metric.split('/')[1]}")
    legend_below(made, axes, across=2)
    return made, frame


@figure("loss_curves", reads=("epoch",))
def loss_curves(evidence: Evidence) -> Drawn | None:
    """Draw training and validation loss over epochs, means over seeds, in one column of the table.

    It is the first in which something has run; dense rows are in every column.
    """
    results, curves = evidence.results, evidence.histories.curves
    losses = ["train/loss", "val/loss"]
    if curves.empty:
        return None
    keys = ["row", "column", "epoch"]
    frame = curves[[*keys, *losses]].groupby(keys, sort=False, as_index=False).mean()
    run = set(frame["column"])
    column = next((column for column in results.columns if column in run), results.columns[0])
    made, axes, _ = panels(range(2), width=3.8, height=3.2)
    look, names = looks(results.rows), legend_names(results)
    for row in results.rows:
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
    legend_below(made, axes, across=2)
    return made, frame

"""What happens over epochs: metric, coverage, losses, and the cost of a prune."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from operator import itemgetter

import pandas as pd
from matplotlib.axes import Axes

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    DASHES,
    MOST_PANELS,
    Drawn,
    Evidence,
    Look,
    figure,
    legend_below,
    looks,
    mean_over,
    panels,
    plain_decades,
    plot_rows,
    share_y,
    tell_left_out,
)
from gapbench.report.ends import name_lines

MOST_ROWS = 24
COLOURS = {"grow": "#f3e3c3", "tune": "#dcebf5"}  # of what a plan does
# what the shock of a prune is drawn against, side by side
SHOCK = {"epoch": "machine-epochs", "mask_error": "relative mask error of the prune"}


@figure("anytime")
def anytime(evidence: Evidence) -> Drawn | None:
    """Draw the validation metric over epochs, with growing, fine-tuning and prunes marked.

    There is one panel per row. Each epoch's model is evaluated as it is, including dense layers.
    """
    results, metric = evidence.results, evidence.watched
    curves = evidence.histories.curves.dropna(subset=metric)
    if curves.empty:
        return None
    keys = ["row", "column", "epoch"]
    frame = curves.groupby(keys, sort=False, as_index=False).agg({metric: "mean", "role": "first"})
    known = [row for row in results.rows if row.name in set(frame["row"])]
    made, axes, rows = panels(known, across=4, most=MOST_ROWS)
    look = looks(results.rows)
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
        _rule(ax, _prunes(evidence, row.name))
        ax.set_ylim(low - edge, high + edge)
        ax.set_title(evidence.names[row.name], fontsize=8)
        ax.set_xlabel("machine-epochs")
        if len(columns) > 1:
            ax.legend(title=results.column, loc="lower right")
    axes[0].set_ylabel(f"validation {metric.rpartition('/')[2]}")
    words = ["shaded: growing (sand), fine-tuning (blue)", "dotted: prune", made.get_suptitle()]
    made.suptitle("; ".join(filter(None, words)), fontsize=8)
    return made, frame


def _rule(ax: Axes, epochs: Sequence[float]) -> None:
    """Draw a dotted line at each epoch, all as one artist, so that files stay small."""
    x = [at for epoch in epochs for at in (epoch, epoch, math.nan)]
    y = [0.0, 1.0, math.nan] * len(epochs)
    ax.plot(x, y, ":", color="#999999", linewidth=0.5, zorder=0,
            transform=ax.get_xaxis_transform())  # fmt: skip


def _shade(ax: Axes, curve: pd.DataFrame) -> None:
    spans = list(_spans(curve))
    for role, start, stop in spans if len(spans) > 1 else ():
        if role in COLOURS:
            ax.axvspan(start, stop, color=COLOURS[role], linewidth=0, zorder=0)


def _spans(curve: pd.DataFrame) -> Iterator[tuple[str, float, float]]:
    """Yield each role with its first epoch (from 0) and the epoch after its last epoch."""
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

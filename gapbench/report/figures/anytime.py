"""The validation metric over epochs."""

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
    Drawn,
    Evidence,
    figure,
    looks,
    panels,
)

MOST_ROWS = 24


COLOURS = {"grow": "#f3e3c3", "tune": "#dcebf5"}  # of what a plan does


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

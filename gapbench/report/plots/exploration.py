"""Where weights are and have been: coverage, density of layers, masks before and after growing."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
import seaborn

from gapbench.report.figures import (
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


@figure("coverage", reads=("epoch",))
def coverage(evidence: Evidence) -> Drawn | None:
    """Draw the share of prunable weights that has ever been active, over epochs.

    Of P-GaP's branches it is the largest share so far: each counts its own partition, until they
    are merged.
    """
    results, curves = evidence.results, evidence.histories.curves
    frame = curves[["row", "column", "epoch", "coverage"]].dropna(subset="coverage")
    if frame.empty:
        return None
    frame = frame.groupby(["row", "column", "epoch"], sort=False, as_index=False).mean()
    frame["coverage"] = frame.groupby(["row", "column"], sort=False)["coverage"].cummax()
    columns = [column for column in results.columns if column in set(frame["column"])]
    if not columns:
        return None
    made, axes, shown = panels(columns, width=4.2, height=3.0, across=2)
    look, names = looks(results.rows), legend_names(results)
    for ax, column in zip(axes, shown, strict=True):
        for row in results.rows:
            own = frame[(frame["row"] == row.name) & (frame["column"] == column)]
            if len(own):
                ax.plot(own["epoch"], own["coverage"], label=names[row.name],
                        **look[row.name].line())  # fmt: skip
        ax.set_ylim(0, 1.03)
        ax.set_xlabel("machine-epochs")
        ax.set_title(f"{results.column} {text_of(column)}")
    share_y(axes)
    axes[0].set_ylabel("coverage of prunable weights")
    legend_below(made, axes, across=2)
    return made, frame


def _in_model_order(layers: pd.DataFrame) -> list[str]:
    """Return the layers of all trials as those with most name them: one kept dense has no name."""
    count = layers.groupby("key")["layer"].transform("size")
    widest = count.sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys(layers.loc[widest, "layer"]))


@figure("layer_density", reads=())
def layer_density(evidence: Evidence) -> Drawn | None:
    """Draw the density of every layer that is pruned; rows of equal densities share a panel.

    Layers stand in model order. Where there is no bar a row leaves the layer dense.
    """
    layers = evidence.histories.layers
    frame = layers[["row", "column", "layer", "density", "numel"]]
    frame = frame.groupby(["row", "column", "layer"], sort=False, as_index=False).mean()
    groups: dict[tuple[Any, ...], list[str]] = {}
    shown: dict[tuple[Any, ...], pd.DataFrame] = {}
    for (row, column), own in frame.groupby(["row", "column"], sort=False):
        if (own["density"] < 1).any():
            same = (column, *own["layer"], *own["density"].round(3))
            groups.setdefault(same, []).append(str(row))
            shown[same] = own
    if not groups:
        return None
    order = _in_model_order(layers)
    width = max(7.0, 0.8 + 0.09 * len(order))  # so that names stand apart
    made, axes, chosen = panels(
        sorted(groups.items(), key=lambda g: str(g[0][0])), width=width, height=1.7, across=1
    )
    look = looks(evidence.results.rows)
    for ax, (same, rows) in zip(axes, chosen, strict=True):
        own = shown[same]
        colour = look[rows[0]].colour if len(rows) == 1 else "#777777"
        density = own.set_index("layer")["density"].reindex(order)
        ax.bar(range(len(order)), density, color=colour)
        ax.set_xlim(-0.6, len(order) - 0.4)
        words = f"{evidence.results.column} {text_of(same[0])}: {'; '.join(rows)}"
        ax.set_title(textwrap.fill(words, 105), fontsize=7)
        ax.grid(visible=False, axis="x")
        ax.set_ylim(min(0.004, own["density"].min() / 1.5), 1.2)
        ax.set_yscale("log")
        plain_decades(ax.yaxis)
        ax.set_ylabel("density")
        ax.set_xticks([])
    names = [name.removesuffix(".weight") for name in order]
    axes[-1].set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    # inches of a letter: upright names stand below the panels, not in the last one's place
    made.set_figheight(made.get_figheight() + 0.055 * max(map(len, names)))
    return made, frame


@figure("mask_iou", reads=("change",))
def mask_iou(evidence: Evidence) -> Drawn | None:
    """Draw how much of each layer's mask came back when it was pruned, prune by prune.

    The value is intersection over union of the mask before growing with that after pruning back.
    Rows that prune once have no rounds to compare.
    """
    prunes = evidence.histories.changes
    prunes = prunes[(prunes["event"] == "prune") & prunes["iou"].notna()]
    lines = [
        (prune.row, prune.column, prune.epoch, layer, value)
        for prune in prunes.itertuples()
        for layer, value in prune.iou.items()
    ]
    if not lines:
        return None
    frame = pd.DataFrame(lines, columns=["row", "column", "epoch", "layer", "iou"])
    keys = ["row", "column", "epoch", "layer"]
    frame = frame.groupby(keys, sort=False, as_index=False).mean()
    groups = frame.groupby(["row", "column"], sort=False)
    repeated = [(at, own) for at, own in groups if own["epoch"].nunique() > 1]
    if not repeated:
        return None
    pruned = dict.fromkeys(frame["layer"])
    order = dict.fromkeys([*_in_model_order(evidence.histories.layers), *pruned])
    layers = [layer for layer in order if layer in pruned]
    height = max(2.2, 0.9 + 0.13 * len(layers))
    made, axes, shown = panels(repeated, width=4.4, height=height, across=2)
    for ax, ((row, column), own) in zip(axes, shown, strict=True):
        grid = own.pivot(index="layer", columns="epoch", values="iou")
        grid = grid.reindex(layers)
        grid.index = [name.removesuffix(".weight") for name in grid.index]
        grid.columns = [f"{epoch:g}" for epoch in grid.columns]
        seaborn.heatmap(grid, ax=ax, vmin=0, vmax=1, cmap="cividis", cbar=False,
                        xticklabels=True, yticklabels=True)  # fmt: skip
        ax.tick_params(labelsize=6)
        ax.grid(visible=False)
        ax.set(xlabel="epoch of the prune", ylabel="")
        ax.set_title(f"{row} — {evidence.results.column} {text_of(column)}", fontsize=8)
    share_y(axes)  # names stand at the left alone
    made.colorbar(axes[0].collections[0], ax=axes, label="IoU", fraction=0.03, aspect=40)
    return made, frame

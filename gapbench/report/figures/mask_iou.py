"""Masks before and after growing."""

from __future__ import annotations

import pandas as pd
import seaborn

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    in_model_order,
    panels,
    share_y,
)


@figure("mask_iou", reads=("change",))
def mask_iou(evidence: Evidence) -> Drawn | None:
    """Draw the share of each layer's mask that came back at each prune.

    The value is the intersection over union of the mask before growing and the mask after pruning
    back. Rows that prune only once are left out.
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
    order = dict.fromkeys([*in_model_order(evidence.histories.layers), *pruned])
    layers = [layer for layer in order if layer in pruned]
    height = max(2.2, 0.9 + 0.13 * len(layers))
    made, axes, shown = panels(repeated, width=4.4, height=height, across=2)
    for ax, ((row, column), own) in zip(axes, shown, strict=True):
        grid = own.pivot(index="layer", columns="epoch", values="iou")
        grid = grid.reindex(layers)
        grid.index = [name.removesuffix(".weight") for name in grid.index]
        grid.columns = [f"{epoch:g}" for epoch in grid.columns]
        seaborn.heatmap(grid, ax=ax, vmin=0, vmax=1, cmap="cividis", cbar=False, rasterized=True,
                        xticklabels=True, yticklabels=True)  # fmt: skip
        ax.tick_params(labelsize=6)
        ax.grid(visible=False)
        ax.set(xlabel="epoch of the prune", ylabel="")
        ax.set_title(f"{row} — {evidence.results.column} {text_of(column)}", fontsize=8)
    share_y(axes)  # names stand at the left alone
    made.colorbar(axes[0].collections[0], ax=axes, label="IoU", fraction=0.03, aspect=40)
    return made, frame

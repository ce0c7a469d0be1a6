"""The density of each layer."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    in_model_order,
    looks,
    mean_over,
    panels,
    plain_decades,
)


@figure("layer_density", reads=())
def layer_density(evidence: Evidence) -> Drawn | None:
    """Draw the density of every layer that is pruned; rows of equal densities share a panel.

    Layers are in model order. A layer without a bar is dense.
    """
    layers = evidence.histories.layers
    frame = layers[["row", "column", "layer", "density", "numel"]]
    frame = mean_over(frame, "row", "column", "layer")
    groups: dict[tuple[Any, ...], list[str]] = {}
    shown: dict[tuple[Any, ...], pd.DataFrame] = {}
    for (row, column), own in frame.groupby(["row", "column"], sort=False):
        if (own["density"] < 1).any():
            same = (column, *own["layer"], *own["density"].round(3))
            groups.setdefault(same, []).append(str(row))
            shown[same] = own
    if not groups:
        return None
    order = in_model_order(layers)
    width = max(7.0, 0.8 + 0.09 * len(order))  # so that names stand apart
    by_column = sorted(groups.items(), key=lambda group: str(group[0][0]))
    made, axes, chosen = panels(by_column, width=width, height=1.7, across=1)
    look = looks(evidence.results.rows)
    for ax, (same, rows) in zip(axes, chosen, strict=True):
        own = shown[same]
        colour = look[rows[0]].colour if len(rows) == 1 else "#777777"
        density = own.set_index("layer")["density"].reindex(order)
        ax.bar(range(len(order)), density, color=colour)
        ax.set_xlim(-0.6, len(order) - 0.4)
        words = f"{evidence.at(same[0])}: {'; '.join(rows)}"
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

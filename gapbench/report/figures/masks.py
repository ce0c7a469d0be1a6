"""Masks: layers' densities, what comes back of a mask, and how alike branches are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import seaborn

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    in_model_order,
    looks,
    mean_over,
    panels,
    plain_decades,
    share_y,
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
    frame = mean_over(frame, "row", "column", "epoch", "layer")
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
        ax.set_title(f"{row} — {evidence.at(column)}", fontsize=8)
    share_y(axes)  # names stand at the left alone
    made.colorbar(axes[0].collections[0], ax=axes, label="IoU", fraction=0.03, aspect=40)
    return made, frame


@figure("branch_iou", reads=("change",))
def branch_iou(evidence: Evidence) -> Drawn | None:
    """Draw the similarity of the masks of P-GaP's branches at the end of the last round.

    The value is the intersection over union of two branches' masks of the whole model. A branch
    changes the mask of its own partition only. So two branches differ in their two partitions, by
    the changes of both since the start of the round.
    """
    trials = evidence.histories.changes.groupby(["row", "column", "key"], sort=False)
    lines = [
        (row, column, one, other, value)
        for (row, column, key), changes in trials
        for one, other, value in _pairs(list(_last_round(changes)), _kept(evidence, key))
    ]
    if not lines:
        return None
    frame = pd.DataFrame(lines, columns=["row", "column", "branch", "other", "iou"])
    frame = mean_over(frame, "row", "column", "branch", "other")
    groups = list(frame.groupby(["row", "column"], sort=False))
    made, axes, shown = panels(groups, width=3.4, height=2.9)
    for ax, ((row, column), own) in zip(axes, shown, strict=True):
        grid = own.pivot(index="branch", columns="other", values="iou")
        seaborn.heatmap(grid, ax=ax, vmax=1, cmap="cividis", annot=True, fmt=".3f",
                        annot_kws={"size": 7}, cbar_kws={"label": "IoU"})  # fmt: skip
        ax.grid(visible=False)
        ax.set(xlabel="branch", ylabel="branch")
        ax.set_title(f"{row} — {evidence.at(column)}", fontsize=8)
    return made, frame


def _last_round(changes: pd.DataFrame) -> Iterator[Mapping[str, float]]:
    """Yield, branch by branch, the IoU of each layer's mask in a trial's last round."""
    events = changes[changes["event"].isin(["prune", "merge"])].to_dict("records")
    merges = [number for number, event in enumerate(events) if event["event"] == "merge"]
    if not merges:
        return
    first = merges[-2] + 1 if len(merges) > 1 else 0
    for event in events[first : merges[-1]]:
        if isinstance(event["iou"], dict):
            yield event["iou"]


def _kept(evidence: Evidence, key: object) -> dict[str, float]:
    layers = evidence.histories.layers
    own = layers[layers["key"] == key]
    return dict(zip(own["layer"], own["density"] * own["numel"], strict=True))


def _pairs(
    branches: list[Mapping[str, float]], kept: Mapping[str, float]
) -> Iterator[tuple[int, int, Any]]:
    """Yield the IoU of each pair of branches over all layers.

    Two masks of k weights with IoU v share 2kv / (1 + v) weights, and their union has
    2k / (1 + v) weights.
    """
    for one, mine in enumerate(branches, 1):
        for other, theirs in enumerate(branches, 1):
            moved = {**mine, **theirs} if one != other else {}
            shared = covered = 0.0
            for layer, count in kept.items():
                value = moved.get(layer, 1.0)
                shared += 2 * count * value / (1 + value)
                covered += 2 * count / (1 + value)
            yield one, other, shared / covered if covered else float("nan")

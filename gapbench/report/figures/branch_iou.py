"""Comparison of P-GaP's branches with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import seaborn

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    panels,
)


@figure("branch_iou", reads=("change",))
def branch_iou(evidence: Evidence) -> Drawn | None:
    """Draw the similarity of the masks of P-GaP's branches at the end of the last round.

    The value is the intersection over union of two branches' masks of the whole model. A branch
    changes the mask of its own partition only. So two branches differ in their two partitions, by
    the changes of both since the start of the round.
    """
    lines = [
        (row, column, one, other, value)
        for (row, column, key), changes in evidence.histories.changes.groupby(
            ["row", "column", "key"], sort=False
        )
        for one, other, value in _pairs(list(_last_round(changes)), _kept(evidence, key))
    ]
    if not lines:
        return None
    keys = ["row", "column", "branch", "other"]
    frame = pd.DataFrame(lines, columns=[*keys, "iou"])
    frame = frame.groupby(keys, sort=False, as_index=False).mean()
    groups = list(frame.groupby(["row", "column"], sort=False))
    made, axes, shown = panels(groups, width=3.4, height=2.9)
    for ax, ((row, column), own) in zip(axes, shown, strict=True):
        grid = own.pivot(index="branch", columns="other", values="iou")
        seaborn.heatmap(grid, ax=ax, vmax=1, cmap="cividis", annot=True, fmt=".3f",
                        annot_kws={"size": 7}, cbar_kws={"label": "IoU"})  # fmt: skip
        ax.grid(visible=False)
        ax.set(xlabel="branch", ylabel="branch")
        ax.set_title(f"{row} — {evidence.results.column} {text_of(column)}", fontsize=8)
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

"""The record of one mask change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Event = Literal["initial", "prune", "grow", "update", "merge"]


@dataclass(frozen=True)
class Change:
    """One change of the masks.

    Attributes:
        event: the kind of change.
        step: number of optimiser steps before the change, counted over the whole run.
        layers: names of the layers that changed.
        mask_error: ||w - m w||^2 / ||w||^2 over the pruned layers, for prunes.
        iou: intersection over union of each layer's new mask with its earlier mask: the mask before
            growth (for prunes), or the mask before the update.
        densities: density of every layer after the change.
    """

    event: Event
    step: int
    layers: tuple[str, ...]
    mask_error: float | None = None
    iou: dict[str, float] | None = None
    densities: dict[str, float] | None = None

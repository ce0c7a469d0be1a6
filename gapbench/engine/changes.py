"""The record of one mask change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Event = Literal["initial", "prune", "grow", "update", "merge"]


@dataclass(frozen=True)
class Change:
    """What happened to the masks at one moment.

    Attributes:
        event: the kind of change.
        step: optimiser steps before it, counted over the whole run.
        layers: names of the layers that changed.
        mask_error: ||w - m w||^2 / ||w||^2 over the pruned layers, for prunes.
        iou: for each layer, the intersection over union of its mask with the one that it had
            before it grew (prunes) or before the update.
        densities: density of every layer after the change.
    """

    event: Event
    step: int
    layers: tuple[str, ...]
    mask_error: float | None = None
    iou: dict[str, float] | None = None
    densities: dict[str, float] | None = None

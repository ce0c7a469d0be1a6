"""Constant fan-in: every output unit keeps the same number of weights (SRigL)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.plan.phases import Layer
from gapbench.sparsity.masks import top_mask
from gapbench.sparsity.pattern import LOWEST, Pattern, finite, pattern

KIND = "constant_fan_in"


@pattern(KIND)
@dataclass(frozen=True)
class ConstantFanIn(Pattern):
    """Every active row of a layer (the weights of one output unit) has the same number of weights.

    The number is at least one: a layer with a budget below its number of rows keeps one per row.

    Drop-and-grow drops over the whole layer, then grows in each row up to the fan-in. A weight is
    salient if it is kept or has one of the largest growth scores. With `salient` above 0, a row
    with fewer salient weights than this share of the fan-in is ablated. The fan-in of the other
    rows then grows to floor(budget / rows). An ablated row stays ablated until the layer is pruned
    from dense again.

    Source: M. Lasby et al., Dynamic Sparse Training with Structured Sparsity, 2023, section 3.
    """

    salient: float = 0.0

    form = f"{KIND}, {KIND}:0.3"
    rounds_up = True

    @property
    def text(self) -> str:  # type: ignore[override]
        """The written form, such as constant_fan_in:0.3."""
        return f"{KIND}:{self.salient:g}" if self.salient else KIND

    @property
    def keeps_counts(self) -> bool:  # type: ignore[override]
        """Whether no row is ablated."""
        return not self.salient

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """Read "constant_fan_in", and "constant_fan_in:0.3" with ablation."""
        found = re.fullmatch(rf"{KIND}(?::(\d(?:\.\d{{1,6}})?))?", text, re.ASCII)
        if found is None:
            return None
        salient = float(found[1] or 0)
        if salient > 1:
            raise ValueError("needs a share of the fan-in in [0, 1]")
        return cls(salient)

    def fit(self, layer: Layer, keep: int) -> int:
        """Return a multiple of the number of rows."""
        rows = layer.shape[0]
        return max(1, keep // rows) * rows

    def slack(self, layer: Layer) -> int:
        """Return the most positions that rounding down the fan-in loses when rows are ablated."""
        return layer.shape[0] - 1 if self.salient else 0

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return a mask in which every row is filled to the same count."""
        kept = torch.zeros_like(scores, dtype=torch.bool) if kept is None else kept
        rows = scores.flatten(1)
        fan_in = (kept.count_nonzero() + count) // len(rows)
        alive = torch.ones(len(rows), dtype=torch.bool, device=scores.device)
        return _filled(rows, kept.flatten(1), fan_in, alive).view(scores.shape)

    def shrink(self, scores: Tensor, count: int, mask: Tensor) -> Tensor:
        """Return a mask inside a larger mask; ablated rows stay ablated."""
        alive = mask.flatten(1).any(1)
        none = torch.zeros_like(mask).flatten(1)
        fan_in = count // alive.sum().clamp_min(1)
        return _filled(scores.flatten(1), none, fan_in, alive).view(scores.shape)

    def holds(self, mask: Tensor) -> bool:
        """Say whether all active rows have the same number of positions."""
        counts = mask.flatten(1).sum(1)
        return bool(((counts == counts.max()) | (counts == 0)).all())

    def replace(
        self, drop: Tensor, mask: Tensor, growth: Tensor, count: int, active: int, meant: int
    ) -> Tensor:
        """Drop the layer's lowest scores, ablate rows with few salient weights, grow per row."""
        kept = top_mask(drop.masked_fill(~mask, LOWEST), active - count).flatten(1)
        alive = mask.flatten(1).any(1)
        if self.salient:
            grown = top_mask(growth.masked_fill(mask, LOWEST), count).flatten(1)
            alive = self._salient((kept | grown).sum(1), alive, meant, kept.shape[1])
        kept &= alive[:, None]
        fan_in = meant // alive.sum()
        return _filled(growth.flatten(1), kept, fan_in, alive).view(mask.shape)

    def _salient(self, found: Tensor, alive: Tensor, budget: int, width: int) -> Tensor:
        """Return the rows with enough salient weights, or the best rows if these are too few."""
        least = max(1, math.ceil(budget / width))
        fan_in = budget / alive.sum().clamp_min(1).double()
        best = top_mask(found.float().masked_fill(~alive, LOWEST), least)
        return (alive & (found >= (self.salient * fan_in).float())) | best


def _filled(scores: Tensor, kept: Tensor, fan_in: Tensor, alive: Tensor) -> Tensor:
    """Return `kept` with each active row filled to `fan_in` by the row's largest scores.

    The fan-in, a count, stays on the masks' device, so the host waits for no device.
    """
    lack = (fan_in - kept.sum(1)).clamp_min(0) * alive
    order = finite(scores).masked_fill(kept, LOWEST).argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks.scatter_(1, order, places)
    return kept | (ranks < lack[:, None])

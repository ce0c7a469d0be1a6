"""n:m sparsity: at most n of m consecutive weights, for faster products on some GPUs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.plan.phases import Layer
from gapbench.sparsity.masks import top_mask
from gapbench.sparsity.pattern import LOWEST, Pattern, finite, pattern


@pattern("n:m")
@dataclass(frozen=True)
class NOfM(Pattern):
    """At most n of every m consecutive weights along a layer's inputs (dimension 1) are active.

    At density n/m every group has n active weights. At higher densities, as in gradual pruning, the
    n largest weights of each group are kept first.

    Source: A. Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, section 3 (2:4); A.
    Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch, 2021.
    """

    n: int
    m: int

    form = "2:4"

    @property
    def text(self) -> str:  # type: ignore[override]
        """The written form, such as 2:4."""
        return f"{self.n}:{self.m}"

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """Read "2:4"."""
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text, re.ASCII)
        if found is None:
            return None
        n, m = int(found[1]), int(found[2])
        if not 1 <= n < m:
            raise ValueError("needs 1 <= n < m")
        return cls(n, m)

    def misfit(self, layer: Layer, keep: int) -> str | None:
        """Return a message if inputs are no multiple of m or `keep` is above n of m, else None."""
        if layer.shape[1] % self.m:
            return f"{layer.name} has {layer.shape[1]} inputs, not a multiple of {self.m}"
        most = layer.numel * self.n // self.m
        return f"{layer.name} would keep {keep} weights, at most {most}" if keep > most else None

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return a mask that first fills each group up to n, then adds positions beyond n."""
        places = scores.numel() // self.m * self.n if kept is None else None
        kept = torch.zeros_like(scores, dtype=torch.bool) if kept is None else kept
        own = finite(scores).masked_fill(kept, float("inf"))
        order = self._groups(own).argsort(dim=1, descending=True, stable=True)
        within = torch.zeros_like(order, dtype=torch.bool)
        within.scatter_(1, order[:, : self.n], True)
        free = self._from_groups(within, scores.shape) & ~kept
        if places is None:  # waits for the device
            places = int(free.count_nonzero())
        first = top_mask(own.masked_fill(~free, LOWEST), min(count, places))
        if count <= places:
            return kept | first
        taken = kept | free
        return taken | top_mask(own.masked_fill(taken, LOWEST), count - places)

    def holds(self, mask: Tensor) -> bool:
        """Say whether no group has more than n active weights."""
        return bool((self._groups(mask).sum(1) <= self.n).all())

    def _groups(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(1, -1).reshape(-1, self.m)

    def _from_groups(self, groups: Tensor, shape: torch.Size) -> Tensor:
        moved = groups.view(shape[0], *shape[2:], shape[1])
        return moved.movedim(-1, 1).contiguous()

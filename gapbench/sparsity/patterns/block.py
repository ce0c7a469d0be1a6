"""Block sparsity: the weights of a block are kept or pruned together."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from gapbench.plan.phases import Layer
from gapbench.sparsity.masks import top_mask
from gapbench.sparsity.pattern import LOWEST, Pattern, pattern


@pattern("block")
@dataclass(frozen=True)
class Block(Pattern):
    """Tiles of rows x columns of a layer's matrix are active or masked as a whole.

    The matrix has one row per output unit. A tile's score is the sum of its positions' scores.

    Source: S. Narang et al., Block-Sparse Recurrent Neural Networks, 2017.
    """

    rows: int
    columns: int

    form = "block:4x1"

    @property
    def text(self) -> str:  # type: ignore[override]
        """The written form, such as block:4x1."""
        return f"block:{self.rows}x{self.columns}"

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """Read "block:4x1"."""
        found = re.fullmatch(r"block:(\d{1,5})x(\d{1,5})", text, re.ASCII)
        if found is None:
            return None
        rows, columns = int(found[1]), int(found[2])
        if rows < 1 or columns < 1:
            raise ValueError("needs at least one row and one column")
        return cls(rows, columns)

    def fit(self, layer: Layer, keep: int) -> int:
        """Return a count of whole tiles, at least one."""
        size = self.rows * self.columns
        return max(1, keep // size) * size

    def misfit(self, layer: Layer, keep: int) -> str | None:
        """Return why tiles cannot cover the layer, or None."""
        out, width = layer.shape[0], layer.numel // layer.shape[0]
        if out % self.rows or width % self.columns:
            return (
                f"{layer.name} is {out} x {width}, not a multiple of {self.rows} x {self.columns}"
            )
        return None

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return a mask of the whole tiles with the largest scores, beside `kept`."""
        if kept is not None:
            return kept | self.select(scores.masked_fill(kept, LOWEST), count)
        tiles = self._tiles(scores.nan_to_num(nan=float("inf"), neginf=LOWEST)).sum((1, 3))
        chosen = top_mask(tiles, count // (self.rows * self.columns))
        whole = chosen[:, None, :, None].expand(-1, self.rows, -1, self.columns)
        return whole.reshape(scores.shape)

    def holds(self, mask: Tensor) -> bool:
        """Say whether every tile is active or masked as a whole."""
        tiles = self._tiles(mask)
        return torch.equal(tiles.any(3).any(1), tiles.all(3).all(1))

    def replace(
        self, drop: Tensor, mask: Tensor, growth: Tensor, count: int, active: int, meant: int
    ) -> Tensor:
        """Drop and grow whole tiles: at least one, if any position would move."""
        size = self.rows * self.columns
        moved = max(size, count // size * size) if count else 0
        moved = min(moved, active)
        kept = self.select(drop.masked_fill(~mask, LOWEST), active - moved)
        return self.select(growth, moved, kept)

    def _tiles(self, tensor: Tensor) -> Tensor:
        """Return a view of four dimensions: tile row, row in it, tile column, column in it."""
        matrix = tensor.reshape(tensor.shape[0], -1)
        rows, columns = matrix.shape[0] // self.rows, matrix.shape[1] // self.columns
        return matrix.reshape(rows, self.rows, columns, self.columns)

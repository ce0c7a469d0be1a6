"""The compact form in which a branch's result travels: bit masks and the weights inside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapbench.engine.rounds import BranchResult
from gapbench.sparsity.masks import unpack


def encode(result: BranchResult) -> dict[str, Any]:
    """Return a dict that `torch.load(weights_only=True)` reads; pruned weights are left out."""
    values = {}
    for name, weight in result.layers.items():
        mask = unpack(result.masks[name], tuple(weight.shape)).to(weight.device)
        values[name] = weight.contiguous()[mask]
    return {**vars(result), "layers": values}


def decode(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> BranchResult:
    """Return the result that `encode` was given, bit for bit."""
    layers: dict[str, Tensor] = {}
    for name, values in state["layers"].items():
        mask = unpack(state["masks"][name], shapes[name]).to(values.device)
        layers[name] = torch.zeros(shapes[name], dtype=values.dtype, device=values.device)
        layers[name][mask] = values
    return BranchResult(**{**state, "layers": layers})

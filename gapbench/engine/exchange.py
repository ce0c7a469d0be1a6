"""The compact encoding of a branch's result: coded masks, and the weights inside the masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapbench.engine.rounds import BranchResult
from gapbench.sparsity import mask_codes
from gapbench.sparsity.masks import pack, unpack


def encode(result: BranchResult) -> dict[str, Any]:
    """Return a result without pruned weights as a dict for `torch.load(weights_only=True)`."""
    layers, masks = {}, {}
    for name, weight in result.layers.items():
        mask = unpack(result.masks[name], tuple(weight.shape)).to(weight.device)
        layers[name] = weight.contiguous()[mask]
        masks[name] = mask_codes.encode(mask)
    return {**vars(result), "layers": layers, "masks": masks}


def decode(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> BranchResult:
    """Return the result that `encode` was given, bit for bit.

    Raises:
        UserError: if a mask is damaged, or its layer has another shape.
    """
    layers: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, values in state["layers"].items():
        mask = mask_codes.decode(state["masks"][name], shapes[name]).to(values.device)
        layers[name] = torch.zeros(shapes[name], dtype=values.dtype, device=values.device)
        layers[name][mask] = values
        masks[name] = pack(mask)
    return BranchResult(**{**state, "layers": layers, "masks": masks})


def sizes(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes in bytes of the layers in a dict that `encode` returned.

    Returns:
        "sent": bytes of the coded masks and of the weights inside the masks; "dense": bytes of the
        whole layers; "bound": bytes of the weights inside the masks plus the entropy of random
        masks with the same counts.
    """
    sent = dense = 0
    bound = 0.0
    for name, values in state["layers"].items():
        numel, active = math.prod(shapes[name]), values.numel()
        width = values.element_size()
        sent += active * width + state["masks"][name].numel()
        dense += numel * width
        bound += active * width + numel * entropy(active / numel) / 8
    return {"sent": sent, "dense": dense, "bound": math.ceil(bound)}


def entropy(density: float) -> float:
    """Return the entropy in bits of one entry of a random mask of this density."""
    shares = (density, 1 - density)
    return -sum(share * math.log2(share) for share in shares if share > 0)

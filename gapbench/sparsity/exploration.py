"""How much of the weight space a run has explored, and what pruning does to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gapbench.methods.plan import DropGrow, Layers, Plan
from gapbench.sparsity.masks import pack, unpack, zeros_of


class Coverage:
    """R(t): the fraction of prunable weights that has been active in at least one step.

    Args:
        shapes: shape of every prunable layer by name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = dict(shapes)
        self._seen: dict[str, Tensor] = {
            name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()
        }
        self._counts = dict.fromkeys(shapes, 0)

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Add what is active now; a layer without a mask is dense."""
        for name, seen in self._seen.items():
            if self._counts[name] == seen.numel():
                continue
            mask = masks.get(name)
            seen |= torch.ones_like(seen) if mask is None else mask.to(seen.device)
            self._counts[name] = int(seen.sum())

    def fraction(self) -> float:
        """Return R over all layers."""
        return sum(self._counts.values()) / sum(
            seen.numel() for seen in self._seen.values()
        )

    def per_layer(self) -> dict[str, float]:
        """Return R of each layer."""
        return {
            name: self._counts[name] / seen.numel() for name, seen in self._seen.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the packed bitmaps."""
        return {name: pack(seen) for name, seen in self._seen.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._seen = {
            n: unpack(state[n].cpu(), shape) for n, shape in self._shapes.items()
        }
        self._counts = {name: int(seen.sum()) for name, seen in self._seen.items()}


def iou(a: Tensor, b: Tensor) -> float:
    """Return the intersection over union of two masks; 1 for two empty ones."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def mask_error(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> float:
    """Return ||w - m w||^2 / ||w||^2 over all `weights`, the energy that `masks` remove."""
    whole = sum(float(w.detach().double().square().sum()) for w in weights.values())
    kept = sum(
        float(w.detach().double().masked_fill(~masks[name], 0).square().sum())
        for name, w in weights.items()
    )
    return (whole - kept) / whole if whole else 0.0


def planned_coverage(
    plan: Plan, layers: Layers, densities: Mapping[str, float]
) -> list[float] | None:
    """Return R during each segment of a plan, or None where masks follow gradients or chance.

    Args:
        plan: the plan.
        layers: the prunable layers.
        densities: their densities under the first, random masks.
    """
    if any(isinstance(segment.phase.update, DropGrow) for segment in plan.segments):
        return None
    numel = {layer.name: layer.numel for layer in layers}
    seen = {
        name: count - zeros_of(count, densities[name]) for name, count in numel.items()
    }
    curve = []
    for segment in plan.segments:
        seen.update((name, numel[name]) for name in segment.phase.grow)
        curve.append(sum(seen.values()) / sum(numel.values()))
    return curve

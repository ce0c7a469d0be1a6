"""The share of weights that a run has explored, and measures of mask changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gapbench.plan.phases import Layers, Plan
from gapbench.sparsity.counts import zeros_of
from gapbench.sparsity.joined import worth_joining
from gapbench.sparsity.masks import counts, pack, unpack

NEARLY_ALL = 0.99  # of the weights: rules that move masks by chance never end


class Coverage:
    """R(t): the fraction of prunable weights that has been active in at least one step.

    The record is on the masks' device and takes one byte per weight.

    Args:
        shapes: shape of every prunable layer by name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._seen = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Add the weights that are active now; a layer without a mask is dense."""
        together = worth_joining(list(masks.values()))
        for name, seen in self._seen.items():
            if name not in masks:
                seen.fill_(True)
                continue
            self._seen[name] = seen.to(masks[name].device)
            if not together:
                self._seen[name].logical_or_(masks[name])
        if together:  # as bytes, of which the larger is the logical or
            own = [name for name in self._seen if name in masks]
            torch._foreach_maximum_(
                [self._seen[name].view(torch.uint8) for name in own],
                [masks[name].view(torch.uint8) for name in own],
            )

    def fraction(self) -> float:
        """Return R over all layers together."""
        return sum(counts(self._seen).values()) / sum(seen.numel() for seen in self._seen.values())

    def per_layer(self) -> dict[str, float]:
        """Return R of each layer."""
        return {n: count / self._seen[n].numel() for n, count in counts(self._seen).items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the record, packed to bits, by layer."""
        return {name: pack(seen) for name, seen in self._seen.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state that `state_dict` returned."""
        self._seen = {
            name: unpack(state[name], tuple(seen.shape)) for name, seen in self._seen.items()
        }


def iou(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """Return each layer's intersection over union of two masks; 1 where both are empty.

    Args:
        a: masks by layer.
        b: other masks of the same layers; masks of further layers are ignored.
    """
    both = {name: mask & b[name] for name, mask in a.items()}
    parts = {0: a, 1: b, 2: both}
    found = counts({(at, name): part[name] for at, part in parts.items() for name in a})
    unions = {name: found[0, name] + found[1, name] - found[2, name] for name in a}
    return {name: found[2, name] / union if union else 1.0 for name, union in unions.items()}


def mask_error(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> float:
    """Return ||w - m w||^2 / ||w||^2 over all `weights`; 0 if all weights are zero.

    Args:
        weights: dense weights by name.
        masks: a mask for each of the weights.
    """
    cut = (weight.masked_fill(masks[name], 0) for name, weight in weights.items())
    # waits once for the device
    whole, lost = torch.stack([_energy(weights.values()), _energy(cut)]).tolist()
    return lost / whole if whole else 0.0


def planned_coverage(
    plan: Plan, layers: Layers, densities: Mapping[str, float]
) -> list[float] | None:
    """Return R at the end of each segment, or None if updates move masks, so that R is measured.

    As in the run, a branch of a parallel round counts weights from before the round and weights
    that the branch grows itself. The union of the branches counts from the next part on.

    Args:
        plan: the plan.
        layers: the prunable layers.
        densities: density of every layer under the first masks.
    """
    updates = (segment.phase.update for segment in plan.segments)
    moved = any(update is not None and update.moves for update in updates)
    if moved or plan.transform is not None:
        return None
    numel = {layer.name: layer.numel for layer in layers}
    weights = sum(numel.values())
    masked = {name: zeros_of(count, densities[name]) for name, count in numel.items()}
    explored: frozenset[str] = frozenset()  # layers that have been dense
    before_part, part = explored, 0
    curve = []
    for segment in plan.segments:
        if segment.part != part:
            before_part, part = explored, segment.part
        known = before_part | segment.phase.grow
        explored = explored | known
        unseen = sum(zeros for name, zeros in masked.items() if name not in known)
        curve.append((weights - unseen) / weights)
    return curve


def _energy(tensors: Iterable[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) for tensor in tensors]
    return torch.stack(norms).square().sum()

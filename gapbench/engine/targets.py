"""How many weights each layer keeps, and the proof on the weights that it does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gapbench.engine.guards import not_finite
from gapbench.errors import UserError
from gapbench.plan.phases import Layers, Plan
from gapbench.sparsity.distributions import check_reachable, densities, distributions
from gapbench.sparsity.masks import zeros_of


class Targets:
    """Kept counts of the layers of one run.

    Args:
        layers: the prunable layers.
        sparsity: fraction of zeros over all of them.
        distribution: name of the rule that spreads the zeros, or the density of every layer.
        plan: layers that it leaves dense at its end have no target.

    Raises:
        UserError: if the sparsity is outside [0, 1) or out of reach, or the distribution needs
            magnitudes and the plan never prunes by magnitude.
    """

    def __init__(
        self,
        layers: Layers,
        sparsity: float,
        distribution: str | Mapping[str, float],
        plan: Plan,
    ) -> None:
        if not 0 <= sparsity < 1:
            raise UserError(f"sparsity: {sparsity} is not possible: give a number in [0, 1)")
        self.layers = {layer.name: layer for layer in layers}
        self.sparsity = sparsity
        self.distribution = distribution
        self._rule = distributions[distribution] if isinstance(distribution, str) else None
        self.by_magnitude = self._rule is not None and self._rule.by_magnitude
        self.untargeted = plan.dense_at_end
        self._overlapping = False
        shapes = {layer.name: layer.shape for layer in layers}
        if not isinstance(distribution, str):
            self._density = dict(distribution)
        elif self.by_magnitude:
            if plan.initial == "random" and not any(s.phase.grow for s in plan.segments):
                raise UserError(
                    f"distribution: {distribution} needs a method that prunes by magnitude; "
                    "with this one choose uniform or erk"
                )
            together = list(dict.fromkeys(plan.pruned_together(frozenset(shapes))))
            check_reachable(distribution, shapes, sparsity, together)
            self._overlapping = sum(map(len, together)) > len(frozenset().union(*together))
            self._density = densities("uniform", shapes, sparsity)
        else:
            self._density = densities(distribution, shapes, sparsity)

    def initial(self) -> dict[str, int]:
        """Return the kept counts of random first masks (uniform where magnitudes will decide)."""
        return {name: self._exact(name, 1.0) for name in self.layers}

    def keep(
        self, params: Mapping[str, Tensor], masks: Mapping[str, Tensor], progress: float = 1.0
    ) -> dict[str, int]:
        """Return the kept counts of layers that are pruned together.

        Args:
            params: weights by name.
            masks: those of all layers; one without is dense.
            progress: fraction of the final sparsity that is asked for now.
        """
        if self._rule is None or not self.by_magnitude:
            return {name: self._exact(name, progress) for name in params}
        sparsity = self.sparsity * progress
        if self._overlapping:
            sparsity = self._sparsity_left(params, masks, sparsity)
        return self._rule.spread(params, sparsity)

    def _sparsity_left(
        self, params: Mapping[str, Tensor], masks: Mapping[str, Tensor], sparsity: float
    ) -> float:
        """Return the sparsity of `params` that gives all layers together the asked one.

        Where prunes share layers, as those of random growth do, a layer's zeros depend on those it
        was pruned with: equal sparsity in each prune would not add up to that of the model.
        """
        numel = {name: layer.numel for name, layer in self.layers.items()}
        zeros = zeros_of(sum(numel.values()), 1 - sparsity)
        for name in numel.keys() - params.keys():
            mask = masks.get(name)
            zeros -= zeros_of(numel[name], 1 - sparsity) if mask is None else _zeros_of_mask(mask)
        own = sum(numel[name] for name in params)
        # halfway to the next count: the product with `own` cannot be rounded below `zeros`
        return (min(max(zeros, 0), own - 1) + 0.5) / own

    def _exact(self, name: str, progress: float) -> int:
        numel = self.layers[name].numel
        return numel - zeros_of(numel, 1 - (1 - self._density[name]) * progress)

    def verify(
        self, params: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], remark: str = ""
    ) -> int:
        """Count the zeros of the weights and compare them with the targets.

        Args:
            params: the weights by name.
            masks: their masks; a layer without one is dense.
            remark: what the message of a miss ends with.

        Returns:
            the number of active weights that are exactly zero.

        Raises:
            UserError: naming the layers whose zeros miss the target.
        """
        held = {n: masks[n] for n in params if n in masks}
        wrong = [
            f"{name} has {_zeros(params[name])} zeros, not {zeros}"
            for name, zeros in self._expected(held).items()
            if _zeros(params[name]) < zeros or _zeros_of_mask(held.get(name)) != zeros
        ]
        if self.by_magnitude:
            wrong += self._total_missed(held)
        if wrong:
            told = "; ".join(wrong[:5])
            remark = f"{remark}{not_finite(params)}"
            raise UserError(f"sparsity missed in {len(wrong)} places: {told}{remark}")
        return sum(_zeros(param) for param in params.values()) - sum(
            _zeros_of_mask(mask) for mask in held.values()
        )

    def _total_missed(self, masks: Mapping[str, Tensor]) -> list[str]:
        """Compare the whole with the target: each group pruned together rounds down once."""
        numel = sum(layer.numel for layer in self.layers.values())
        zeros = sum(_zeros_of_mask(mask) for mask in masks.values())
        target = zeros_of(numel, 1 - self.sparsity)
        if target - len(self.layers) <= zeros <= target:
            return []
        return [f"all layers together have {zeros} zeros, not {target}"]

    def _expected(self, masks: Mapping[str, Tensor]) -> dict[str, int]:
        targeted = [name for name in self.layers if name not in self.untargeted]
        if not self.by_magnitude:
            return {name: self.layers[name].numel - self._exact(name, 1.0) for name in targeted}
        return {name: _zeros_of_mask(masks.get(name)) for name in targeted}


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(torch.count_nonzero(weight))


def _zeros_of_mask(mask: Tensor | None) -> int:
    return 0 if mask is None else mask.numel() - int(mask.sum())

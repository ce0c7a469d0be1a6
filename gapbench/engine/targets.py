"""The number of weights that each layer keeps, and a check of the weights against it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gapbench.engine.guards import not_finite
from gapbench.errors import UserError
from gapbench.plan.phases import Layers, Plan
from gapbench.sparsity.counts import Counts, zeros_of
from gapbench.sparsity.distributions import check_reachable, densities, distributions
from gapbench.sparsity.masks import counts
from gapbench.sparsity.pattern import Pattern, require_fit


class Targets:
    """The kept counts of the layers of one run.

    Args:
        layers: the prunable layers.
        sparsity: fraction of zeros over all prunable layers.
        distribution: name of the rule that spreads the zeros, or the density of every layer.
        plan: the plan; layers that are dense at its end have no target.
        pattern: the pattern of the masks.

    Raises:
        UserError: if the sparsity is outside [0, 1) or out of reach, if the distribution needs
            magnitudes and the plan never prunes by magnitude, or if the pattern does not fit a
            layer.
    """

    def __init__(
        self,
        layers: Layers,
        sparsity: float,
        distribution: str | Mapping[str, float],
        plan: Plan,
        pattern: Pattern,
    ) -> None:
        if not 0 <= sparsity < 1:
            raise UserError(f"sparsity: {sparsity} is not possible: give a number in [0, 1)")
        self.layers = {layer.name: layer for layer in layers}
        self.sparsity = sparsity
        self.distribution = distribution
        self._rule = distributions[distribution] if isinstance(distribution, str) else None
        self.by_magnitude = self._rule is not None and self._rule.by_magnitude
        self.untargeted = plan.dense_at_end
        self.budget = plan.budget
        self.pattern = pattern
        self._overlapping = False
        shapes = {layer.name: layer.shape for layer in layers}
        if self.by_magnitude:
            self._require_prunes(plan, shapes)
        self.counts = Counts(layers, self._densities(shapes), pattern)
        require_fit(pattern, plan, None if self.by_magnitude else self.counts)

    def _densities(self, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, float]:
        """Return every layer's density; uniform densities if magnitudes will decide."""
        if not isinstance(self.distribution, str):
            return dict(self.distribution)
        return densities(
            "uniform" if self.by_magnitude else self.distribution, shapes, self.sparsity
        )

    def _require_prunes(self, plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that magnitudes can decide."""
        name = str(self.distribution)
        if plan.initial == "random" and not any(s.phase.grow for s in plan.segments):
            raise UserError(
                f"distribution: {name} needs a method that prunes by magnitude; "
                "with this one choose uniform or erk"
            )
        together = list(dict.fromkeys(plan.pruned_together(frozenset(shapes))))
        check_reachable(name, shapes, self.sparsity, together)
        self._overlapping = sum(map(len, together)) > len(frozenset().union(*together))

    def initial(self) -> dict[str, int]:
        """Return the kept counts of random first masks (uniform if magnitudes will decide)."""
        return self.counts()

    def keep(
        self, params: Mapping[str, Tensor], masks: Mapping[str, Tensor], progress: float = 1.0
    ) -> dict[str, int]:
        """Return the kept counts of layers that are pruned together.

        Args:
            params: weights by name.
            masks: masks of all layers; a layer without a mask is dense.
            progress: fraction of the final sparsity to reach now.
        """
        if self._rule is None or not self.by_magnitude:
            return {name: self.counts.of(name, progress) for name in params}
        sparsity = self.sparsity * progress
        if self._overlapping:
            sparsity = self._sparsity_left(params, masks, sparsity)
        return self._rule.spread(params, sparsity)

    def above(self, params: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the layers to prune so that all layers are at their targets now.

        These are the dense layers, and the layers with more active positions than their final
        count. If magnitudes decide, these are the dense layers; if no layer is dense and the total
        is above the target, these are all layers.
        """
        targeted = {n: p for n, p in params.items() if n not in self.untargeted}
        dense = {n: p for n, p in targeted.items() if n not in masks}
        if self.budget != "layers":
            return dense
        active = counts({n: masks[n] for n in targeted if n in masks})
        if not self.by_magnitude:
            high = {n for n, count in active.items() if count > self.counts.of(n)}
            return {n: p for n, p in targeted.items() if n in dense or n in high}
        numel = sum(layer.numel for layer in self.layers.values())
        most = numel - zeros_of(numel, 1 - self.sparsity) + len(self.layers)
        return targeted if not dense and sum(active.values()) > most else dense

    def _sparsity_left(
        self, params: Mapping[str, Tensor], masks: Mapping[str, Tensor], sparsity: float
    ) -> float:
        """Return the sparsity of `params` that brings all layers together to `sparsity`.

        A layer's zeros depend on the layers that are pruned with the layer. If prunes share layers,
        as in random growth, equal sparsity in each prune would not add up to the model's sparsity.
        """
        numel = {name: layer.numel for name, layer in self.layers.items()}
        zeros = zeros_of(sum(numel.values()), 1 - sparsity)
        others = [name for name in numel if name not in params]
        kept = counts({name: masks[name] for name in others if name in masks})
        for name in others:
            asked = zeros_of(numel[name], 1 - sparsity)
            zeros -= numel[name] - kept[name] if name in kept else asked
        own = sum(numel[name] for name in params)
        # halfway to the next count: the product with `own` cannot be rounded below `zeros`
        return (min(max(zeros, 0), own - 1) + 0.5) / own

    def verify(
        self, params: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], remark: str = ""
    ) -> int:
        """Count the zeros of the weights and compare them with the targets.

        Args:
            params: weights by name.
            masks: masks by name; a layer without a mask is dense.
            remark: a text to append to the error message.

        Returns:
            the number of active weights that are exactly zero.

        Raises:
            UserError: naming the layers whose zeros miss the target.
        """
        held = {n: masks[n] for n in params if n in masks}
        masked = dict.fromkeys(params, 0)
        masked |= {n: held[n].numel() - count for n, count in counts(held).items()}
        nonzero = counts({n: param.detach() != 0 for n, param in params.items()})
        zeros = {n: param.numel() - nonzero[n] for n, param in params.items()}
        wrong = [
            f"{name} has {zeros[name]} zeros, not {expected}"
            for name, expected in self._expected(masked).items()
            if zeros[name] < expected or not 0 <= masked[name] - expected <= self._slack(name)
        ]
        if self.by_magnitude or self.budget == "total":
            wrong += self._total_missed(masked)
        broken = [n for n, mask in held.items() if masked[n] and not self.pattern.holds(mask)]
        wrong += [f"{name} breaks the pattern {self.pattern.text}" for name in broken]
        if wrong:
            told = "; ".join(wrong[:5])
            remark = f"{remark}{not_finite(params)}"
            raise UserError(f"sparsity missed in {len(wrong)} places: {told}{remark}")
        return sum(zeros.values()) - sum(masked.values())

    def _slack(self, name: str) -> int:
        return self.pattern.slack(self.layers[name])

    def _total_missed(self, masked: Mapping[str, int]) -> list[str]:
        """Compare the total with the target; each prune of several layers rounds down once."""
        numel = sum(layer.numel for layer in self.layers.values())
        zeros = sum(masked.values())
        if self.by_magnitude:
            target = zeros_of(numel, 1 - self.sparsity)
            least = target - len(self.layers)
        else:
            least = target = numel - sum(self.counts().values())
        if least <= zeros <= target:
            return []
        return [f"all layers together have {zeros} zeros, not {target}"]

    def _expected(self, masked: Mapping[str, int]) -> dict[str, int]:
        targeted = [name for name in self.layers if name not in self.untargeted]
        if self.by_magnitude or self.budget != "layers":
            return {name: masked[name] for name in targeted}
        return {name: self.layers[name].numel - self.counts.of(name) for name in targeted}

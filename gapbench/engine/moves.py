"""The mask operations of an update on an executor; implements `gapbench.plan.update.Masks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from gapbench.sparsity.score import Inputs, scores

if TYPE_CHECKING:
    from gapbench.engine.executor import Executor


class Moves:
    """Changes the masks of an executor at one step, and records the changes.

    Args:
        executor: the executor whose masks change.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def prune(self, progress: float) -> None:
        """Keep the largest weights at `progress` times the final sparsity."""
        self._executor.prune(tuple(self._executor.weights.params), progress)

    def drop_and_grow(self, fraction: float, drop: str, grow: str, coefficient: float = 0) -> None:
        """Move int(fraction x active) positions of each sparse layer by the named scores."""
        own = self._executor
        overlap = own.weights.drop_and_grow(
            fraction,
            self._scored(drop, coefficient),
            self._scored(grow, coefficient),
            own.targets.counts(),
        )
        own.coverage.update(own.weights.masks)
        own.record("update", tuple(overlap), overlap=overlap)

    def resize(self, factor: float, drop: str, grow: str, coefficient: float = 0) -> None:
        """Give each sparse layer int(factor x target) active positions."""
        own = self._executor
        targets = own.targets.keep(own.weights.params, own.weights.masks)
        keep = {name: int(factor * targets[name]) for name in own.weights.masks}
        self.resize_to(keep, drop, grow, coefficient)

    def resize_to(
        self, keep: Mapping[str, int], drop: str, grow: str, coefficient: float = 0
    ) -> None:
        """Give every layer of `keep` its count `keep[layer]` of active positions."""
        own = self._executor
        sizes, fit = self.sizes(), own.targets.counts.fit
        overlap = own.weights.resize(
            {name: fit(name, min(sizes[name], count)) for name, count in keep.items()},
            self._scored(drop, coefficient),
            self._scored(grow, coefficient),
        )
        own.coverage.update(own.weights.masks)
        own.record("update", tuple(overlap), overlap=overlap)

    def active(self) -> dict[str, int]:
        """Return the number of active positions of each sparse layer."""
        counts = self._executor.weights.active()
        return {name: counts[name] for name in self._executor.weights.masks}

    def sizes(self) -> dict[str, int]:
        """Return the number of all positions of each sparse layer."""
        return {name: mask.numel() for name, mask in self._executor.weights.masks.items()}

    def mean_score(self, score: str, coefficient: float = 0) -> dict[str, float]:
        """Return the mean score of the active positions of each sparse layer that has scores."""
        own, compute = self._executor.weights, self._scored(score, coefficient)
        found = {name: compute(name, own.params[name]) for name in own.masks}
        return {
            name: float(values[own.masks[name]].double().mean())
            for name, values in found.items()
            if values is not None
        }

    def _scored(self, name: str, coefficient: float) -> Callable[[str, Tensor], Tensor | None]:
        compute, own = scores[name], self._executor

        def of(layer: str, param: Tensor) -> Tensor | None:
            gradient = None if param.grad is None else param.grad.detach()
            inputs = Inputs(
                weight=param.detach(),
                gradient=gradient,
                moments=own.weights.moments_by_name(layer),
                generator=lambda: own.random("growth", own.steps, layer),
                coefficient=coefficient,
            )
            return compute(inputs)

        return of

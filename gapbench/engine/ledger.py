"""The measured cost of a run: nonzero weights, counted exactly during training.

Counts are integers, so a resumed run and a run with remote branches add up to the same cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from gapbench.plan.phases import Layers
from gapbench.sparsity.cost import ForwardCost


class LedgerState(TypedDict):
    """A ledger as plain integers."""

    uses: dict[str, int]
    steps: int
    active_steps: int
    peak_active: int


class Ledger:
    """Adds up weight uses per layer: one active weight in one forward pass is one use.

    A training step uses each active weight three times: once forward and twice backward. A mask
    update with the dense gradient uses each active weight twice and each weight of the layer once.
    """

    def __init__(self, layers: Layers) -> None:
        self._numel = {layer.name: layer.numel for layer in layers}
        self.uses = dict.fromkeys(self._numel, 0)
        self.steps = 0
        self.active_steps = 0  # active weights, summed over steps
        self.peak_active = 0

    def add_steps(self, active: Mapping[str, int], steps: int) -> None:
        """Count `steps` training steps with `active` weights in each layer."""
        total = sum(active.values())
        for name, count in active.items():
            self.uses[name] += 3 * count * steps
        self._advance(total, steps)

    def add_dense_gradient(self, active: Mapping[str, int]) -> None:
        """Count one mask update that computed the dense gradient."""
        for name, count in active.items():
            self.uses[name] += 2 * count + self._numel[name]
        self._advance(sum(active.values()), 1)

    def _advance(self, total: int, steps: int) -> None:
        self.steps += steps
        self.active_steps += total * steps
        if steps:
            self.peak_active = max(self.peak_active, total)

    @property
    def mean_density(self) -> float:
        """Density of the prunable weights, averaged over the steps."""
        return self.active_steps / (max(1, self.steps) * sum(self._numel.values()))

    @property
    def peak_density(self) -> float:
        """Largest density of the prunable weights in any step."""
        return self.peak_active / sum(self._numel.values())

    def dense_steps(self, cost: ForwardCost) -> float:
        """Return the cost so far in steps of dense training; a dense step costs 3 f_dense."""
        sparse = sum(cost.macs[name] * uses / self._numel[name] for name, uses in self.uses.items())
        rest = cost.total - sum(cost.macs[name] for name in self.uses)
        return (sparse / 3 + rest * self.steps) / cost.total

    def since(self, start: LedgerState) -> LedgerState:
        """Return the counts since `start`, an earlier state of this ledger."""
        return {
            "uses": {name: uses - start["uses"][name] for name, uses in self.uses.items()},
            "steps": self.steps - start["steps"],
            "active_steps": self.active_steps - start["active_steps"],
            "peak_active": self.peak_active,
        }

    def add(self, part: LedgerState) -> None:
        """Add counts that `since` returned."""
        for name, uses in part["uses"].items():
            self.uses[name] += uses
        self.steps += part["steps"]
        self.active_steps += part["active_steps"]
        self.peak_active = max(self.peak_active, part["peak_active"])

    def state_dict(self) -> LedgerState:
        """Return the ledger as plain integers."""
        return {
            "uses": dict(self.uses),
            "steps": self.steps,
            "active_steps": self.active_steps,
            "peak_active": self.peak_active,
        }

    def load_state_dict(self, state: LedgerState) -> None:
        """Load a state that `state_dict` returned."""
        self.uses = dict(state["uses"])
        self.steps = state["steps"]
        self.active_steps = state["active_steps"]
        self.peak_active = state["peak_active"]

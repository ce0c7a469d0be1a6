"""One executor's P-GaP round: the state at its start, the branches' results, and the merge."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gapbench.engine.rounds import (
    BranchResult,
    RoundStart,
    followed_layer,
    merged,
    restore,
    snapshot,
    tensors,
)
from gapbench.sparsity.masks import pack, unpack

if TYPE_CHECKING:
    from gapbench.engine.executor import Executor


class Round:
    """The current P-GaP round of an executor.

    Args:
        executor: the executor; its plan may have rounds.

    Attributes:
        results: results of the branches that have ended in this process.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor: Executor = weakref.proxy(executor)  # a cycle would keep it, and its model
        self._start: RoundStart | None = None
        self.results: list[BranchResult] = []

    def keep_start(self) -> None:
        """Save the state from which all branches start."""
        own = self._executor
        self._start = RoundStart(
            snapshot(own.model),
            packed(own.masks),
            own.coverage.state_dict(),
            own.ledger.state_dict(),
        )
        self.results = []

    def return_to_start(self) -> None:
        """Restore the state from which all branches start."""
        start = self._started
        restore(self._executor.model, start.tensors)
        self._executor.restore(start.masks, start.ledger, start.coverage)

    def hand_back(self, grown: Collection[str]) -> BranchResult:
        """Return the result of the branch that grew the layers `grown`."""
        own = self._executor
        state = snapshot(own.model)
        followed = followed_layer(state, tuple(own.weights.params))
        return BranchResult(
            layers={name: state[name] for name in sorted(grown)},
            masks=packed({name: own.masks[name] for name in sorted(grown)}),
            others={n: state[n] for n, near in followed.items() if near is None or near in grown},
            ledger=own.ledger.since(self._started.ledger),
        )

    def merge(self) -> None:
        """End the round with the results of all its branches."""
        own = self._executor
        self.return_to_start()
        followed = followed_layer(tensors(own.model), tuple(own.weights.params))
        restore(own.model, merged(self.results, followed))
        for result in self.results:
            own.ledger.add(result.ledger)
        masks = {name: mask for result in self.results for name, mask in result.masks.items()}
        own.weights.set_masks(unpacked(masks, {x.name: x.shape for x in own.layers}))
        own.coverage.update({})  # every layer was dense in its own branch
        self._start, self.results = None, []
        own.record("merge", tuple(own.weights.params))

    @property
    def _started(self) -> RoundStart:
        if self._start is None:
            raise RuntimeError("no parallel round has been started")
        return self._start

    def state_dict(self) -> dict[str, Any]:
        """Return the state at the round's start, and the results so far."""
        return {
            "round": None if self._start is None else vars(self._start),
            "results": [vars(result) for result in self.results],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned."""
        self._start = None if state["round"] is None else RoundStart(**state["round"])
        self.results = [BranchResult(**result) for result in state["results"]]


def packed(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each mask packed to bits, by layer."""
    return {name: pack(mask) for name, mask in masks.items()}


def unpacked(
    masks: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return the boolean masks that `packed` was given."""
    return {name: unpack(mask, shapes[name]) for name, mask in masks.items()}

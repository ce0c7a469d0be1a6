"""Updates: rules by which masks change inside a phase.

An update is a frozen dataclass in its own file, registered by its kind. The update changes masks
through the operations of `Masks`, and states its own cost and which counts it leaves exact. So no
other module depends on the list of updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter

from gapbench.base.registry import Registry

U = TypeVar("U", bound="type[Update]")
# which counts are exact at the end of a plan: every layer's count, the total count, or none
Budget = Literal["layers", "total", "emergent"]

# of plans that are read from files
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Active(Protocol):
    """The active weights of every layer."""

    def __call__(self, progress: float = 1.0) -> dict[str, int]:
        """Return the number of active weights at `progress` times the final sparsity, by layer."""

    def fit(self, name: str, count: int) -> int:
        """Return the count nearest to `count` that a layer can have under its pattern."""


class Masks(Protocol):
    """The operations of an update on the masks of all sparse layers; counts are exact."""

    def prune(self, progress: float) -> None:
        """Keep the largest weights at `progress` times the final sparsity."""

    def drop_and_grow(self, fraction: float, drop: str, grow: str, coefficient: float = 0) -> None:
        """Move int(fraction x active) positions of each layer by the named scores."""

    def resize(self, factor: float, drop: str, grow: str, coefficient: float = 0) -> None:
        """Give each layer int(factor x target) active positions: drop lowest scores, or grow."""

    def resize_to(
        self, keep: Mapping[str, int], drop: str, grow: str, coefficient: float = 0
    ) -> None:
        """Give every layer of `keep` its count `keep[layer]` of active positions."""

    def active(self) -> dict[str, int]:
        """Return the number of active positions of each sparse layer."""

    def sizes(self) -> dict[str, int]:
        """Return the number of all positions of each sparse layer."""

    def mean_score(self, score: str, coefficient: float = 0) -> dict[str, float]:
        """Return the mean score of the active positions of each sparse layer that has scores."""


@dataclass(frozen=True)
class Stretch:
    """Steps between two changes of the active counts.

    Attributes:
        active: active weights of every layer.
        steps: optimiser steps.
        dense_gradients: steps that compute the dense gradient of the weights.
    """

    active: dict[str, int]
    steps: int
    dense_gradients: int = 0


class Update:
    """A rule that changes masks at some steps of a phase; the phase's first step is step 0.

    Attributes:
        kind: the registered name.
        every: optimiser steps between two changes.
        scores: names of the scores that the update uses.
        replaces_step: whether a change replaces the optimiser step.
        dense_gradient: whether a change needs the gradients of masked weights.
        moves: whether the plan cannot tell the masks' positions, so that coverage is only measured.
        reaches_targets: whether the update prunes the phase's dense layers to their targets.
        budget: which counts stay exact; "total" if the update moves weights between layers.
    """

    kind: str
    every: int
    replaces_step: bool = False
    dense_gradient: ClassVar[bool] = False
    moves: ClassVar[bool] = True
    reaches_targets: ClassVar[bool] = False
    budget: ClassVar[Budget] = "layers"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores that the update uses."""
        return ()

    def due(self, step: int, steps: int) -> bool:
        """Say whether masks change at step `step` of a phase of `steps` steps."""
        raise NotImplementedError

    def dues(self, steps: int) -> Iterable[int]:
        """Return the steps at which masks change in a phase of `steps` steps, in order."""
        return (step for step in range(steps) if self.due(step, steps))

    def change(self, masks: Masks, step: int, steps: int) -> None:
        """Change the masks at a step at which the update is due."""
        raise NotImplementedError

    def completes(self, step: int, steps: int) -> bool:
        """Say whether this change ends a gradual pruning; the metric is measured around it."""
        return False

    def stretches(self, steps: int, active: Active, grown: Mapping[str, int]) -> Iterator[Stretch]:
        """Yield stretches of equal active counts in a phase, from which its cost is computed.

        Args:
            steps: number of optimiser steps of the phase.
            active: the active weights of every layer.
            grown: number of weights of the layers that are dense in the phase.
        """
        due = sum(1 for _ in self.dues(steps)) if self.dense_gradient else 0
        yield Stretch({**active(1.0), **grown}, steps - due, due)


updates: Registry[type[Update]] = Registry("update", "gapbench.plan.updates")


def update(kind: str) -> Callable[[U], U]:
    """Register a frozen dataclass as the update `kind`; a kind must never be reused."""

    def add(cls: U) -> U:
        updates.register(kind)(cls)
        return cls

    return add


def update_of(value: Any) -> Any:
    """Return the update of a document; return an update, or None, as it is.

    Raises:
        UserError: if the kind is unknown.
        ValidationError: if a field is invalid.
    """
    if value is None or isinstance(value, Update):
        return value
    return TypeAdapter(updates[value["kind"]]).validate_python(value)

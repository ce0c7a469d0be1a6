"""Updates: how masks change inside of a phase, as values that tell their own cost.

An update is a frozen dataclass in a file of its own, registered by its kind. What it does to masks
it says by the operations of `Masks`; what it costs, and what a plan may promise with it, it says
itself, so that nothing else has to know which updates there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import ConfigDict, TypeAdapter

from gapbench.base.registry import Registry

U = TypeVar("U", bound="type[Update]")
# what is exact at the end of a plan: the count of every layer, that of all together, or none
Budget = Literal["layers", "total", "emergent"]

# of plans that are read from files
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Active(Protocol):
    """The active weights of every layer."""

    def __call__(self, progress: float = 1.0) -> dict[str, int]:
        """Return them at a share of the final sparsity."""

    def fit(self, name: str, count: int) -> int:
        """Return the count nearest to `count` that a layer can have under its pattern."""


class Masks(Protocol):
    """What an update can do to the masks of all sparse layers, each with exact counts."""

    def prune(self, progress: float) -> None:
        """Keep the largest weights at `progress` times the final sparsity."""

    def drop_and_grow(self, fraction: float, drop: str, grow: str, coefficient: float = 0) -> None:
        """Move int(fraction x active) positions of each layer, by names of scores."""

    def resize(self, factor: float, drop: str, grow: str, coefficient: float = 0) -> None:
        """Go to int(factor x target) active positions in each layer: drop the lowest, or grow."""

    def resize_to(
        self, keep: Mapping[str, int], drop: str, grow: str, coefficient: float = 0
    ) -> None:
        """Go to `keep[layer]` active positions in each layer named."""

    def active(self) -> dict[str, int]:
        """Return the active positions of each sparse layer."""

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
    """What changes masks every so often in a phase; step 0 is the first of the phase.

    Attributes:
        kind: the registered name.
        every: steps between two changes.
        scores: names of the scores that it asks for.
        replaces_step: whether a change takes the place of the optimiser step.
        dense_gradient: whether a change needs the gradients of weights that do not exist.
        moves: whether masks move where no plan can tell, so that coverage is measured alone.
        reaches_targets: whether it prunes the layers that are dense in its phase to their targets.
        budget: what it leaves exact; an update that moves weights between layers says "total".
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
        """The names of the scores that are asked for."""
        return ()

    def due(self, step: int, steps: int) -> bool:
        """Say whether masks change at step `step` of a phase of `steps` steps."""
        raise NotImplementedError

    def dues(self, steps: int) -> Iterable[int]:
        """Return the steps of a phase of `steps` steps that are due, in order."""
        return (step for step in range(steps) if self.due(step, steps))

    def change(self, masks: Masks, step: int, steps: int) -> None:
        """Change the masks at a step that is due."""
        raise NotImplementedError

    def completes(self, step: int, steps: int) -> bool:
        """Say whether this change is the last of a gradual pruning, whose shock is measured."""
        return False

    def stretches(self, steps: int, active: Active, grown: Mapping[str, int]) -> Iterator[Stretch]:
        """Yield what a phase of `steps` steps costs: of equal counts of active weights, by default.

        Args:
            steps: of the phase.
            active: the active weights of every layer.
            grown: the weights of the layers that are dense in the phase.
        """
        due = sum(1 for _ in self.dues(steps)) if self.dense_gradient else 0
        yield Stretch({**active(1.0), **grown}, steps - due, due)


updates: Registry[type[Update]] = Registry("update", "gapbench.plan.updates")


def update(kind: str) -> Callable[[U], U]:
    """Register a frozen dataclass as the update `kind`, a name that is never given again."""

    def add(cls: U) -> U:
        updates.register(kind)(cls)
        return cls

    return add


def update_of(value: Any) -> Any:
    """Return the update that a document holds; an update, or None, as it is.

    Raises:
        UserError: if its kind is unknown.
        ValidationError: if a field is none.
    """
    if value is None or isinstance(value, Update):
        return value
    return TypeAdapter(updates[value["kind"]]).validate_python(value)

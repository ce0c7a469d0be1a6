"""The plan of a method: when each layer is dense, and how masks change. Imports no torch.

A method is a function from (layers, epochs, options) to a `Plan`. All figures that are known before
training (epochs, machine-epochs, cost, coverage) are computed from the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, PlainValidator

from gapbench.errors import UserError
from gapbench.plan.update import STRICT, Budget, Update, update_of

UNSTRUCTURED = "unstructured"  # the pattern of masks without a rule


@dataclass(frozen=True)
class Layer:
    """One prunable weight tensor of a model."""

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs between two scheduled mask changes.

    The start of a phase first prunes to their targets the layers that the phase before grew, then
    removes the masks of the layers in `grow`. A layer may be in both sets: with one partition (DSD)
    every step prunes the whole model and grows the model again from zero.

    Attributes:
        epochs: length in epochs, at least 1.
        grow: names of the layers that are dense during the phase.
        update: the update that changes masks inside the phase, or None.
        restart: whether the optimiser state and the learning-rate schedule restart.
        lr: "recipe" follows the task's schedule; "constant" stays at the peak rate.
        label: description of the phase for people.
    """

    epochs: int
    grow: frozenset[str] = frozenset()
    update: Annotated[Update | None, PlainValidator(update_of)] = None
    restart: bool = True
    lr: Literal["recipe", "constant"] = "recipe"
    label: str = "train"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Parallel:
    """One P-GaP round: all branches start from one state; each hands back the layers it grew."""

    branches: tuple[Phase, ...]

    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Segment:
    """A phase with its position in the plan.

    Attributes:
        phase: the phase.
        start: first machine-epoch; `stop` is the machine-epoch after the last one.
        part: index of the plan's part (a phase, or a whole parallel round).
        branch: index of the branch in a parallel round, else None.
        branches: number of branches in the round; 1 for a plain phase.
    """

    phase: Phase
    start: int
    part: int
    branch: int | None = None
    branches: int = 1

    @property
    def stop(self) -> int:
        """The machine-epoch after the last machine-epoch of the segment."""
        return self.start + self.phase.epochs


@dataclass(frozen=True)
class Transform:
    """A transform that computes all layers' weights before the forward pass, throughout a plan.

    Attributes:
        name: registered name of the transform's function.
        initial: initial value of each layer's trained scalar; None: the transform has no scalar.
        decay: weight decay of the scalar; None: the optimiser's weight decay.
        budget: which counts are exact at the end: every layer's, the total, or none.
    """

    name: str
    initial: float | None = None
    decay: float | None = None
    budget: Budget = "layers"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Plan:
    """The phases and mask changes of a method over time.

    Attributes:
        parts: phases and parallel rounds, in order.
        initial: whether training starts from dense layers or from random masks of exact counts.
        transform: transform of the weights before the forward pass, or None; the optimiser moves
            the latent weights.
    """

    parts: tuple[Phase | Parallel, ...]
    initial: Literal["dense", "random"] = "dense"
    transform: Transform | None = None
    segments: tuple[Segment, ...] = field(init=False, repr=False, compare=False)

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("a plan has no phase: at least one phase is needed")
        alone = len(self.parts) == 1 and isinstance(self.parts[0], Phase)
        if self.transform is not None and not (alone and self.parts[0].update is None):  # type: ignore[union-attr]
            raise UserError("a plan with a transform has one phase, without updates")
        object.__setattr__(self, "segments", tuple(self._lay_out()))

    def _lay_out(self) -> Iterator[Segment]:
        start = 0
        for index, part in enumerate(self.parts):
            if isinstance(part, Phase):
                yield Segment(_checked(part), start, index)
                start += part.epochs
                continue
            for number, phase in enumerate(part.branches):
                yield Segment(_checked(phase), start, index, number, len(part.branches))
                start += phase.epochs

    @property
    def epochs(self) -> int:
        """Machine-epochs: the sum of the epochs of all workers."""
        return sum(segment.phase.epochs for segment in self.segments)

    @property
    def wall_epochs(self) -> int:
        """Epochs of wall-clock time, with the branches of a round in parallel."""
        return sum(
            part.epochs if isinstance(part, Phase) else max(b.epochs for b in part.branches)
            for part in self.parts
        )

    def role(self, epoch: float) -> Literal["grow", "tune", ""]:
        """Return the role of the machine-epoch that ends at `epoch`.

        "grow": layers are grown; "tune": the last of several phases fine-tunes; "": neither.
        """
        inside = (s for s in self.segments if s.start < epoch <= s.stop)
        segment = next(inside, self.segments[-1])
        if segment.phase.grow:
            return "grow"
        return "tune" if segment is self.segments[-1] is not self.segments[0] else ""

    def schedule_of(self, segment: Segment) -> tuple[int, int]:
        """Return the first and the last machine-epoch (exclusive) of the schedule around `segment`.

        A learning-rate schedule spans one phase if the phase restarts the schedule, else all phases
        since the last restart. If these phases begin with phases of constant rate, the schedule
        starts after the latter, so that no part of the schedule is skipped.

        Args:
            segment: a segment that follows the schedule.
        """
        if segment.branch is not None:
            return segment.start, segment.stop
        index = self.segments.index(segment)
        start = index
        while start > 0 and not self.segments[start].phase.restart:
            start -= 1
        while self.segments[start].phase.lr == "constant":  # ends at `segment`, which is not
            start += 1
        stop = index + 1
        while stop < len(self.segments) and not self.segments[stop].phase.restart:
            stop += 1
        return self.segments[start].start, self.segments[stop - 1].stop

    @property
    def dense_at_end(self) -> frozenset[str]:
        """Names of the layers that the plan never prunes back."""
        if self.transform is not None:
            return frozenset()
        last = self.segments[-1].phase
        reached = last.update is not None and last.update.reaches_targets
        return frozenset() if reached else last.grow

    @property
    def budget(self) -> Budget:
        """Which counts are exact at the end of the plan: every layer's, the total, or none."""
        updates = (segment.phase.update for segment in self.segments)
        found = {update.budget for update in updates if update is not None}
        if self.transform is not None:
            found.add(self.transform.budget)
        order: tuple[Budget, ...] = ("emergent", "total")
        return next((budget for budget in order if budget in found), "layers")

    def require_sparse_end(self, sparsity: float) -> None:
        """Check that a plan for a sparse model prunes all layers that the plan grows.

        Raises:
            UserError: naming a layer that the plan leaves dense.
        """
        if sparsity > 0 and self.dense_at_end:
            name = min(self.dense_at_end)
            raise UserError(
                f"the plan ends with {len(self.dense_at_end)} dense layers ({name}), which a "
                f"sparsity of {sparsity:g} does not allow: end the plan with a phase without growth"
            )

    def pruned_together(self, names: frozenset[str]) -> Iterator[frozenset[str]]:
        """Yield the layers of each prune to targets, in a model whose layers are `names`."""
        if self.initial == "dense" and names - self.segments[0].phase.grow:
            yield names - self.segments[0].phase.grow
        for segment in self.segments:
            phase = segment.phase
            if phase.update is not None and phase.update.reaches_targets:
                yield names
            elif phase.grow and phase.update is None and segment is not self.segments[-1]:
                yield phase.grow


def _checked(phase: Phase) -> Phase:
    if phase.epochs < 1:
        raise UserError(
            f"a phase of the plan ({phase.label}) has {phase.epochs} epochs: at least 1 is needed"
        )
    return phase


def names_of(layers: Layers) -> frozenset[str]:
    """Return the names of all `layers`."""
    return frozenset(layer.name for layer in layers)

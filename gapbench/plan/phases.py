"""The plan of a method: which layers are dense when, and how masks change. Imports no torch.

A method is a function from (layers, epochs, options) to a `Plan`. Everything that can be known
before training (epochs, machine-epochs, cost, coverage) is computed from the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import ConfigDict

from gapbench.errors import UserError


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


# of plans that are read from files
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class DropGrow:
    """Replace part of each sparse layer's mask every `every` steps (RigL, SET).

    At step t of the phase, counted from 0, with t a positive multiple of `every` and
    t < T_end = until x steps of the phase, the k = int(f(t) x active) smallest active weights are
    dropped and k positions grown; f is the cosine of RigL, section 3.

    Attributes:
        score: grow where |dense gradient| is largest, or uniformly at random.
        every: steps between two updates (RigL's delta T).
        until: T_end as a fraction of the phase.
        alpha: the initial drop fraction.
        replaces_step: whether the update takes the place of the optimiser step.
    """

    score: Literal["gradient", "random"]
    every: int = 100
    until: float = 0.75
    alpha: float = 0.3
    replaces_step: bool = True
    kind: Literal["drop_grow"] = "drop_grow"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def due(self, step: int, steps: int) -> bool:
        """Say whether step `step` of a phase of `steps` steps is an update."""
        return step > 0 and step % self.every == 0 and step < self.until * steps

    def fraction(self, step: int, steps: int) -> float:
        """Return the drop fraction alpha / 2 x (1 + cos(pi t / T_end))."""
        return self.alpha / 2 * (1 + math.cos(math.pi * step / (self.until * steps)))


@dataclass(frozen=True)
class Gradual:
    """Prune further every `every` steps, along the cubic curve of Zhu & Gupta (2017), eq. 1.

    Attributes:
        every: steps between two prunes.
        start: t0 as a fraction of the phase.
        stop: t1 as a fraction of the phase; from there on the layer is at its target.
    """

    every: int = 100
    start: float = 0.3125
    stop: float = 0.78125
    kind: Literal["gradual"] = "gradual"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def due(self, step: int, steps: int) -> bool:
        """Say whether step `step` of a phase of `steps` steps prunes; t1 always does."""
        t0, t1 = self._span(steps)
        return (t0 <= step < t1 and (step - t0) % self.every == 0) or step == t1

    def prunes(self, steps: int) -> list[int]:
        """Return the steps of a phase of `steps` steps that are due, in order."""
        t0, t1 = self._span(steps)
        return [*range(t0, t1, self.every), t1]

    def progress(self, step: int, steps: int) -> float:
        """Return s(t) / s_final = 1 - (1 - (t - t0) / (t1 - t0))^3, clipped to [0, 1]."""
        t0, t1 = self._span(steps)
        if step >= t1:
            return 1.0
        return 1 - (1 - max(0.0, (step - t0) / (t1 - t0))) ** 3

    def _span(self, steps: int) -> tuple[int, int]:
        return math.floor(self.start * steps), math.floor(self.stop * steps)


Update = DropGrow | Gradual


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs between two scheduled mask changes.

    Entering it prunes the layers that the phase before it grew to their targets, then drops the
    masks of the layers in `grow`. A layer may be in both: with one partition (DSD) every step
    prunes the whole model and grows it again from zero.

    Attributes:
        epochs: length, at least 1.
        grow: names of the layers that are dense during the phase.
        update: mask changes inside the phase.
        restart: whether the optimiser state and the learning-rate schedule start anew.
        lr: "recipe" follows the task's schedule, "constant" stays at the peak rate.
        label: what the phase does, for people.
    """

    epochs: int
    grow: frozenset[str] = frozenset()
    update: Update | None = None
    restart: bool = True
    lr: Literal["recipe", "constant"] = "recipe"
    label: str = "train"

    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Parallel:
    """One P-GaP round: every branch starts from one state and hands back the layers it grew."""

    branches: tuple[Phase, ...]

    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Segment:
    """A phase with its place in the plan.

    Attributes:
        phase: what happens.
        start: first machine-epoch; `stop` is the one after the last.
        part: index of the plan's part (a phase, or a whole parallel round).
        branch: index within a parallel round, else None.
        branches: number of branches in the round, 1 for a plain phase.
    """

    phase: Phase
    start: int
    part: int
    branch: int | None = None
    branches: int = 1

    @property
    def stop(self) -> int:
        """The machine-epoch after the last."""
        return self.start + self.phase.epochs


@dataclass(frozen=True)
class Plan:
    """What a method does over time.

    Attributes:
        parts: phases and parallel rounds, in order.
        initial: whether training starts from dense layers or from random masks of exact counts.
    """

    parts: tuple[Phase | Parallel, ...]
    initial: Literal["dense", "random"] = "dense"
    segments: tuple[Segment, ...] = field(init=False, repr=False, compare=False)

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("a plan has no phase: at least one is needed")
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
        """Machine-epochs: what all workers train together."""
        return sum(segment.phase.epochs for segment in self.segments)

    @property
    def wall_epochs(self) -> int:
        """Epochs on the longest path, the branches of a round side by side."""
        return sum(
            part.epochs if isinstance(part, Phase) else max(b.epochs for b in part.branches)
            for part in self.parts
        )

    def role(self, epoch: float) -> Literal["grow", "tune", ""]:
        """Return what the plan does in the machine-epoch that ends at `epoch`.

        Layers grow, or the last of several phases tunes what they have left, or neither.
        """
        inside = (s for s in self.segments if s.start < epoch <= s.stop)
        segment = next(inside, self.segments[-1])
        if segment.phase.grow:
            return "grow"
        return "tune" if segment is self.segments[-1] is not self.segments[0] else ""

    @property
    def dense_at_end(self) -> frozenset[str]:
        """Names of the layers that the plan never prunes back."""
        last = self.segments[-1].phase
        return frozenset() if isinstance(last.update, Gradual) else last.grow

    def require_sparse_end(self, sparsity: float) -> None:
        """Check that a plan for a sparse model prunes all that it grows.

        Raises:
            UserError: naming a layer that it leaves dense.
        """
        if sparsity > 0 and self.dense_at_end:
            name = min(self.dense_at_end)
            raise UserError(
                f"the plan ends with {len(self.dense_at_end)} dense layers ({name}), which a "
                f"sparsity of {sparsity:g} does not allow: end it with a phase that grows nothing"
            )

    def pruned_together(self, names: frozenset[str]) -> Iterator[frozenset[str]]:
        """Yield the layers of each prune to their targets, in a model whose layers are `names`."""
        if self.initial == "dense" and names - self.segments[0].phase.grow:
            yield names - self.segments[0].phase.grow
        for segment in self.segments:
            phase = segment.phase
            if isinstance(phase.update, Gradual):
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

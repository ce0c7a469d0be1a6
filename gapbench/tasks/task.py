"""What a task is: model, data, loss, metric and recipe. One file in this package a task.

All commands import all tasks: what is slow to load, such as torch, is imported where it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from gapbench.base.identity import Neutral
from gapbench.base.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Split = Literal["train", "val", "test", "heldout"]
Batch = Any  # whatever the task's `batches` yields and its `loss` takes


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


MOST_EPOCHS = 100_000


class Recipe(BaseModel):
    """How a task is trained when nothing is pruned; rows may override single fields.

    Attributes:
        epochs: the task's 1x budget, to which training FLOPs are related.
        batch_size: examples of an optimiser step, over all ranks; tokens for translation.
        optimizer: torch's, of that name.
        lr: the peak of the learning rate.
        momentum: of sgd.
        nesterov: whether the momentum is Nesterov's.
        betas: of adam and adamw.
        weight_decay: of the optimiser.
        decay_norms: whether norms and biases decay, too.
        schedule: how the rate falls from its peak.
        milestones: where the schedule "step" falls, as fractions of the span that it covers, so
            that an M-fold run stretches them.
        decay_factor: of the rate at each milestone.
        warmup_epochs: of linear warm-up; the longer of this and `warmup_steps` counts.
        warmup_steps: the same in optimiser steps.
        label_smoothing: of the cross-entropy.
        clip_norm: the largest norm of the gradients; 0 clips none.
        bf16: whether the forward pass runs under autocast to bfloat16.
        channels_last: whether the model has torch's memory format of that name.
        cpu_threads: torch's threads of each process.
        ranks: processes that share each batch; None is one a GPU that the task asks for.
        portable: whether the CPU kernels are those that every x86-64 processor has, so that their
            bits do not depend on its kind; on a GPU it changes nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    epochs: int = Field(ge=1, le=MOST_EPOCHS)
    batch_size: int = Field(ge=1, lt=2**31)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: Annotated[tuple[float, float], BeforeValidator(_as_tuple)] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    decay_norms: bool = False
    schedule: Literal["cosine", "step", "inverse_sqrt", "constant"] = "cosine"
    milestones: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] = ()
    decay_factor: float = Field(default=0.1, gt=0, lt=1)
    warmup_epochs: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0, lt=2**31)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float = Field(default=0.0, ge=0)
    bf16: bool = False
    channels_last: bool = False
    cpu_threads: int = Field(default=1, ge=1, le=1024)
    ranks: Annotated[int | None, Neutral(None)] = Field(default=None, ge=1, le=65536)
    portable: Annotated[bool, Neutral(False)] = False

    @field_validator("nesterov")
    @classmethod
    def _with_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise ValueError("needs a momentum above 0")
        return nesterov

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("give two numbers in [0, 1)")
        return betas

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        ends = (0.0, *milestones, 1.0)
        if not all(earlier < later for earlier, later in pairwise(ends)):
            raise ValueError("give increasing fractions between 0 and 1")
        return milestones


@dataclass(frozen=True)
class Metric:
    """The figure a task is judged by: its name without the split, and which way is better.

    Attributes:
        margin: differences of less count as none (docs/analysis.md); 0: that has not been fixed.
        collapsed: a seed with a value below this has learned nothing; None: that is not known.
    """

    name: str
    higher_is_better: bool = True
    unit: str = "%"
    margin: float = 0.0
    collapsed: float | None = None


@dataclass(frozen=True)
class Resources:
    """What one trial needs on a cluster; a profile may override it."""

    gpus: int = 0
    cpus: int = 1
    memory_gb: float = 4.0
    hours: float = 1.0
    nodes: int = 1


class Task(ABC):
    """A task, constructed with its options; it touches no data before `load`.

    Options are the keyword arguments of `__init__`, with defaults; their types become the schema of
    `task_options` in ablation files.

    Attributes:
        train_examples: examples of one pass over the training data, known without the data.
        first_layer: parameter name of the input layer, dense in uniform rows.
        compile: whether training goes through torch.compile; evaluation never does.
        capturable: whether batches are tuples of tensors of one layout, and the loss runs the same
            kernels on all of them without asking for a value: on a GPU steps are then replayed.
        epoch_steps: optimiser steps of an epoch, where epochs share passes; None: one pass each.
        heldout: whether there is a split "heldout", of labelled examples that nothing else uses.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    metric: ClassVar[Metric]
    recipe: Recipe
    resources: Resources = Resources()
    train_examples: int
    first_layer: str | None = None
    compile: bool = False
    capturable: bool = False
    epoch_steps: int | None = None
    heldout: bool = False

    @classmethod  # noqa: B027 - most tasks need nothing more than gapbench does
    def require(cls) -> None:
        """Check that the packages this task needs are installed, or raise NotInstalled."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return a new model, its weights drawn from torch's global generator (may be on meta)."""

    @abstractmethod
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the inputs of one forward pass of one example, on torch's default device."""

    def checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what the model's own library loads, made of its state dict: that, by default."""
        return dict(state)

    def prunable(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the prunable parameters, in model order: conv and linear weights."""
        from gapbench.sparsity.layers import prunable

        return prunable(model)

    def partition_patterns(self, partitions: int) -> tuple[tuple[str, ...], ...] | None:
        """Return the task's own split into `partitions` groups of name patterns, if it has one."""
        return None

    def prepare(self, data_dir: Path | None) -> None:  # noqa: B027 - some tasks bring their data
        """Get the data, or raise UserError that says what is missing and how to get it."""

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Load the data; raise UserError where it cannot be had."""

    @abstractmethod
    def data_digest(self) -> str:
        """Return the sha256 that identifies the loaded data and its split."""

    def steps_per_epoch(self, batch_size: int, world: int = 1) -> int:
        """Return the optimiser steps of one epoch, `batch_size` examples each over all ranks."""
        a_pass = self.train_examples // batch_size
        return a_pass if self.epoch_steps is None or a_pass == 0 else self.epoch_steps

    def epoch_examples(self, batch_size: int) -> int:
        """Return the examples of one epoch."""
        steps = self.epoch_steps
        return self.train_examples if steps is None else steps * batch_size

    def passes(
        self, epoch: int, start: int, batch_size: int
    ) -> Iterator[tuple[int, int, int | None]]:
        """Yield where the batches of an epoch lie: number of a pass, first batch, and how many.

        A pass is one order of all training data, without the rest that makes no batch. Epochs of
        `epoch_steps` go on in the pass where the one before has ended, so that no example comes
        twice before all have come.

        Args:
            epoch: from 0.
            start: batches of the epoch that are trained already.
            batch_size: examples of a batch.

        Returns:
            tuples, in which None stands for all that are left of the pass.
        """
        if self.epoch_steps is None:
            yield epoch, start, None
            return
        a_pass = self.train_examples // batch_size
        first, stop = epoch * self.epoch_steps + start, (epoch + 1) * self.epoch_steps
        while first < stop:
            number, inside = divmod(first, a_pass)
            count = min(stop - first, a_pass - inside)
            yield number, inside, count
            first += count

    @abstractmethod
    def batches(
        self,
        seed: int,
        *,
        batch_size: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """Yield this rank's share of the training batches of one epoch.

        Order and augmentation are a function of `seed` and the batch's index alone, so that
        `start=n` yields exactly what would have followed the first n batches.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, recipe: Recipe) -> Tensor:
        """Return the training loss of one batch."""

    def signatures(self) -> dict[str, str]:
        """Return what others need to know to compare the metrics, kept with each result."""
        return {}

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return metrics of `split`, among them `metric.name` and `loss`, in evaluation mode."""


tasks: Registry[type[Task]] = Registry("task", "gapbench.tasks")


def task(name: str, *, version: int) -> Callable[[type[Task]], type[Task]]:
    """Register a task class; raise `version` when its numbers change."""

    def add(cls: type[Task]) -> type[Task]:
        cls.name = name
        cls.version = version
        return tasks.register(name)(cls)

    return add

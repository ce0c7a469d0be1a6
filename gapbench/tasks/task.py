"""The definition of a task: model, data, loss, metric and recipe. One file per task.

All commands import all tasks, so slow modules such as torch are imported where they are used.
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
    """The hyperparameters of a task's dense training; rows may override single fields.

    Attributes:
        epochs: the task's 1x budget, to which training FLOPs are related.
        batch_size: examples per optimiser step over all ranks; for translation, tokens.
        optimizer: name of torch's optimiser.
        lr: peak learning rate.
        momentum: momentum of sgd.
        nesterov: whether sgd uses Nesterov momentum.
        betas: betas of adam and adamw.
        weight_decay: weight decay of the optimiser.
        decay_norms: whether weight decay also applies to norms and biases.
        schedule: decay of the learning rate from its peak.
        milestones: times of decay of the schedule "step", as fractions of the schedule, so that an
            M-fold run stretches them.
        decay_factor: factor of the learning rate at each milestone.
        warmup_epochs: length of linear warm-up in epochs; the longer of `warmup_epochs` and
            `warmup_steps` counts.
        warmup_steps: length of linear warm-up in optimiser steps.
        label_smoothing: label smoothing of the cross-entropy.
        clip_norm: maximum norm of the gradients; 0 turns clipping off.
        bf16: whether the forward pass runs under autocast to bfloat16.
        channels_last: whether the model has torch's memory format channels_last.
        cpu_threads: number of torch's threads in each process.
        ranks: number of processes that share each batch; None: one per GPU that the task asks for.
        portable: whether to use CPU kernels that every x86-64 processor has, so that results do not
            depend on the kind of processor; no effect on a GPU.
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
    """A task's main metric: its name without the split, and whether higher is better.

    Attributes:
        margin: margin of equivalence (docs/analysis.md); 0: no margin has been fixed.
        collapsed: value below which a seed counts as collapsed, having learned nothing; None: the
            value is not known.
    """

    name: str
    higher_is_better: bool = True
    unit: str = "%"
    margin: float = 0.0
    collapsed: float | None = None


@dataclass(frozen=True)
class Resources:
    """The resources of one trial on a cluster; a profile may override them."""

    gpus: int = 0
    cpus: int = 1
    memory_gb: float = 4.0
    hours: float = 1.0
    nodes: int = 1


class Task(ABC):
    """A task with its options; the constructor accesses no data.

    The options are the keyword arguments of `__init__`, with defaults. Their types become the
    schema of `task_options` in ablation files.

    Attributes:
        train_examples: examples of one pass over the training data, known without the data.
        first_layer: parameter name of the input layer, dense in uniform rows.
        compile: whether training goes through torch.compile; evaluation never does.
        capturable: whether CUDA graphs can replay the steps on a GPU. All batches must be tuples of
            tensors of one layout, and the loss must run the same kernels on all batches without
            reading a value.
        epoch_steps: optimiser steps of an epoch, if epochs share passes over the data; None: each
            epoch is one pass.
        heldout: whether there is a split "heldout" of labelled examples that no other split uses.
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
        """Return a new model with weights from torch's global generator (may be on meta)."""

    @abstractmethod
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the inputs of one forward pass of one example, on torch's default device."""

    def checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the model's state dict in the form that the model's own library loads."""
        return dict(state)

    def prunable(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the prunable parameters, in model order: conv and linear weights."""
        from gapbench.sparsity.layers import prunable

        return prunable(model)

    def partition_patterns(self, partitions: int) -> tuple[tuple[str, ...], ...] | None:
        """Return the name patterns of the task's own `partitions` partitions, or None."""
        return None

    def prepare(self, data_dir: Path | None) -> None:  # noqa: B027 - some tasks bring their data
        """Get the data, or raise a UserError that names missing data and how to get them."""

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Load the data; raise a UserError if the data are not available."""

    @abstractmethod
    def data_digest(self) -> str:
        """Return the sha256 that identifies the loaded data and its split."""

    def steps_per_epoch(self, batch_size: int, world: int = 1) -> int:
        """Return the optimiser steps of one epoch, with `batch_size` examples over all ranks."""
        a_pass = self.train_examples // batch_size
        return a_pass if self.epoch_steps is None or a_pass == 0 else self.epoch_steps

    def epoch_examples(self, batch_size: int) -> int:
        """Return the number of examples of one epoch."""
        steps = self.epoch_steps
        return self.train_examples if steps is None else steps * batch_size

    def passes(
        self, epoch: int, start: int, batch_size: int
    ) -> Iterator[tuple[int, int, int | None]]:
        """Yield the position of an epoch's batches: pass number, first batch, number of batches.

        A pass is one order of all training data, without the last, incomplete batch. An epoch of
        `epoch_steps` steps continues the pass of the epoch before, so that no example comes twice
        before all examples have come.

        Args:
            epoch: number of the epoch, from 0.
            start: number of batches of the epoch that are trained already.
            batch_size: number of examples of a batch.

        Returns:
            tuples; a number of batches of None stands for the rest of the pass.
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

        Order and augmentation depend on `seed` and the batch's index alone, so that `start=n`
        yields exactly the batches after the first n batches.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, recipe: Recipe) -> Tensor:
        """Return the training loss of one batch."""

    def signatures(self) -> dict[str, str]:
        """Return details that a comparison of the metrics needs; each result keeps them."""
        return {}

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return metrics of `split` in evaluation mode, including `metric.name` and `loss`."""


tasks: Registry[type[Task]] = Registry("task", "gapbench.tasks")


def task(name: str, *, version: int) -> Callable[[type[Task]], type[Task]]:
    """Register a task class; increase `version` whenever the task's results change."""

    def add(cls: type[Task]) -> type[Task]:
        cls.name = name
        cls.version = version
        return tasks.register(name)(cls)

    return add

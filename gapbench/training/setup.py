"""The objects that one trial trains with, built from plain values in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gapbench.base.streams import stream_seed
from gapbench.engine.sparsifier import Sparsifier
from gapbench.errors import UserError
from gapbench.plan.phases import UNSTRUCTURED, Plan
from gapbench.sparsity.cost import ForwardCost, forward_macs
from gapbench.tasks.task import Recipe, Task
from gapbench.training.distributed import Ranks, replicated
from gapbench.training.step import Step, step_of


@dataclass(frozen=True)
class Settings:
    """The settings, except the task, on which a trial's results depend.

    Attributes:
        first_layer: "sparse" or "dense"; a dense input layer is not part of the sparsity budget.
        relative_cost: forward cost of this trial's dense network over the forward cost of the
            network to which costs are related.
    """

    recipe: Recipe
    plan: Plan
    distribution: str
    first_layer: str
    sparsity: float
    seed: int
    pattern: str = UNSTRUCTURED
    relative_cost: float = 1.0


@dataclass
class Training:
    """A trial during training: its objects and its progress.

    Attributes:
        epoch: number of finished machine-epochs.
        batch: number of optimiser steps done in the current epoch.
        loss_sum: sum of the losses of the current epoch's steps, on the device.
        rate: learning rate of the last step.
    """

    task: Task
    settings: Settings
    device: torch.device
    ranks: Ranks
    model: nn.Module
    replica: nn.Module
    step: Step
    optimizer: torch.optim.Optimizer
    sparsifier: Sparsifier
    cost: ForwardCost
    loss_sum: torch.Tensor
    epoch: int = 0
    batch: int = 0
    rate: float = 0.0

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return self.sparsifier.steps_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state; random streams follow from epoch and batch and need no state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": self.sparsifier.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "data": self.task.data_digest(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned.

        Raises:
            UserError: if the state was trained on other data.
        """
        if state["data"] != self.task.data_digest():
            raise UserError(
                f"task {self.task.name}: the data differ from the checkpoint's data: restore the "
                "checkpoint's data, or start over with --force"
            )
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.sparsifier.load_state_dict(state["sparsifier"])
        self.epoch = state["epoch"]
        self.batch = state["batch"]
        self.loss_sum = state["loss_sum"].to(self.device)


def build(
    task: Task,
    settings: Settings,
    device: torch.device,
    steps_per_epoch: int | None = None,
    fused: bool | None = None,
) -> Training:
    """Build model, optimiser and sparsifier.

    Args:
        task: the task; its data must be loaded already, unless `steps_per_epoch` is given.
        settings: settings of the trial.
        device: device of the model.
        steps_per_epoch: optimiser steps of one epoch, instead of the number that the data give.
        fused: whether one kernel updates all weights, with a learning rate on the device; by
            default on GPUs only. The fused kernel rounds less often than the optimiser's usual
            kernels.
    """
    recipe = settings.recipe
    fused = device.type == "cuda" if fused is None else fused
    fix_numerics(recipe)
    ranks = Ranks.current()
    torch.manual_seed(stream_seed(settings.seed, "init"))
    model = task.build_model().to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, recipe, fused)
    sparsifier = Sparsifier(
        model,
        optimizer,
        settings.plan,
        sparsity=settings.sparsity,
        steps_per_epoch=steps_per_epoch or task.steps_per_epoch(recipe.batch_size, ranks.world),
        distribution=settings.distribution,
        pattern=settings.pattern,
        layers=prunable_layers(task, model, settings.first_layer),
        seed=settings.seed,
        manual_phases=True,
    )
    replica = compiled(replicated(model, ranks)) if task.compile else replicated(model, ranks)
    return Training(
        task=task,
        settings=settings,
        device=device,
        ranks=ranks,
        model=model,
        replica=replica,
        step=step_of(task, recipe, model, replica, ranks, sparsifier),
        optimizer=optimizer,
        sparsifier=sparsifier,
        cost=forward_macs(model, task.example_inputs()),
        loss_sum=torch.zeros((), device=device),
    )


def compiled(model: nn.Module) -> nn.Module:
    """Return a compiled module that shares the parameters of `model`."""
    module: Any = torch.compile(model)
    return module  # type: ignore[no-any-return]


def prunable_layers(task: Task, model: nn.Module, first_layer: str) -> tuple[str, ...]:
    """Return the names of the layers that a trial prunes."""
    skipped = task.first_layer if first_layer == "dense" else None
    return tuple(name for name in task.prunable(model) if name != skipped)


def fix_numerics(recipe: Recipe) -> None:
    """Make computation deterministic: fixed threads and deterministic kernels."""
    torch.set_num_threads(recipe.cpu_threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def build_optimizer(model: nn.Module, recipe: Recipe, fused: bool = False) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; norms and biases have weight decay only with `decay_norms`."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        matrix = parameter.dim() > 1 or recipe.decay_norms
        (decayed if matrix else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    device = next(model.parameters()).device
    rate = torch.tensor(recipe.lr, device=device) if fused else recipe.lr
    own: dict[str, Any] = {"lr": rate, "fused": fused or None}
    graphs: dict[str, Any] = {"capturable": True} if fused else {}  # Adam's condition for them
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(
                groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **own
            )
        case "adam":
            return torch.optim.Adam(groups, betas=recipe.betas, **own, **graphs)
        case "adamw":
            return torch.optim.AdamW(groups, betas=recipe.betas, **own, **graphs)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; a rate on a device is changed in place."""
    for group in optimizer.param_groups:
        _set_rate(group, rate)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state, but keep the optimiser's own kernels and the place of its learning rate."""
    names = ("lr", "fused", "capturable")
    own = [{n: group[n] for n in names if n in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, before in zip(optimizer.param_groups, own, strict=True):
        rate = float(group["lr"])
        group.update(before)
        _set_rate(group, rate)

"""`Sparsifier`: trains a model sparsely by a plan, in place of `optimizer.step()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gapbench.engine.choice import left_dense
from gapbench.engine.executor import Executor
from gapbench.engine.guards import release
from gapbench.engine.scheduler import PlanScheduler
from gapbench.errors import UserError


class Sparsifier(Executor):
    """Trains a model sparsely: call `step()` where the loop had `optimizer.step()`.

    At the end of every phase of the plan `step()` also prunes and grows. A loop that wants to
    look at the model between the two sets `manual_phases` and calls `next_phase()` itself whenever
    `phase_ended` says so.

    Under data parallelism every rank has its own Sparsifier with the same arguments; gradients
    must be averaged before `step()`, as `DistributedDataParallel` does, and equal masks on all
    ranks are verified at every change.

    Args:
        model: the module to train; it is changed only through its weights.
        optimizer: any torch.optim optimiser of its parameters.
        method: a registered method's name, or a `Plan`.
        sparsity: fraction of zeros among the prunable weights, in [0, 1); not needed where every
            layer's density is given, or learned.
        epochs: the budget in machine-epochs; not needed with a `Plan`.
        steps_per_epoch: optimiser steps of one epoch.
        distribution: how the zeros are spread over layers: uniform, erk or global_magnitude; or
            densities by name or pattern, the last that fits; or a function of shapes by name and
            sparsity that returns densities.
        pattern: which masks are allowed: unstructured, "2:4" and other n:m, constant_fan_in, or
            "block:4x1" and other sizes.
        layers: the prunable parameters: names, patterns such as "blocks.*", modules, a function of
            name and parameter, or densities by name; all conv and linear weights that are trained
            by default.
        seed: seed of masks, partitions and random growth.
        manual_phases: leave phase changes to the caller.
        initial: where first masks come from in plans that start from random ones: "random", or
            "magnitude", which keeps the largest weights: those of a pretrained model, or all that a
            sparse one has. By default random, and refused at the first step if the weights have
            zeros or the optimiser has state, unless a state of this Sparsifier is loaded.
        process_group: the ranks that have the model, all of them by default; a Sparsifier on one
            rank alone needs a group of that rank, or it waits for the others.
        options: the method's own options.

    Raises:
        UserError: if a name is unknown or the arguments do not fit together.
    """

    def verify(self, model: nn.Module | None = None) -> int:
        """Check the weights themselves at the plan's end; return how many active ones are zero.

        Args:
            model: one with parameters of the same names, such as an average of the weights over
                time, in place of the model that is trained.

        Raises:
            UserError: naming the layers that miss their targets.
        """
        early = "" if self.done else f"; the plan has not ended: {self.steps} steps are done"
        if model is None:
            self._wiring.require_same()
            return self.targets.verify(self.weights.params, self.weights.masks, early)
        return self.targets.verify(self._params_of(model), self.weights.masks, early)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Zero what is masked now in a model of the same parameter names, such as an average.

        Averages over steps in which masks moved have more weights than any of the models had.
        """
        for name, param in self._params_of(model).items():
            if name in self.weights.masks:
                param.masked_fill_(~self.weights.masks[name].to(param.device), 0)

    def _params_of(self, model: nn.Module) -> dict[str, nn.Parameter]:
        known = dict(model.named_parameters())
        for layer in self.layers:
            if layer.name not in known or known[layer.name].shape != layer.shape:
                raise UserError(f"model: it has no {layer.name} of shape {layer.shape}")
        return {layer.name: known[layer.name] for layer in self.layers}

    def sparse_state_dict(self) -> dict[str, Tensor]:
        """Return the model's state with every layer pruned to its target, at any time.

        Layers that the plan has dense now are pruned by magnitude in the copy; the model goes on as
        it is.
        """
        state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        for name, mask in self.sparse_masks().items():
            if name in state:
                state[name].masked_fill_(~mask, 0)
        return state

    def sparse_masks(self) -> dict[str, Tensor]:
        """Return the masks of what `sparse_state_dict` returns."""
        masks = dict(self.weights.masks)
        over = self.targets.above(self.weights.params, masks)
        if over:
            masks |= self.weights.largest(self.targets.keep(over, masks))
        return masks

    def clip_grad_norm_(self, max_norm: float) -> None:
        """Scale gradients so that their norm over the weights that exist is at most `max_norm`.

        `torch.nn.utils.clip_grad_norm_` counts the gradients of masked weights too.
        """
        self.weights.clip_gradients(self.model.parameters(), max_norm)

    def release(self) -> None:
        """Give the model up, which another Sparsifier may have from now on; this one has ended."""
        release(self)
        self._caller.stop()
        if self._transformed is not None:
            self._transformed.withdraw()

    def summary(self) -> str:
        """Return what is pruned to which density, and which trained matrices are left dense."""
        now = self.densities()
        lines = [
            f"{layer.name} {layer.shape}: density {now[layer.name]:.4g}" for layer in self.layers
        ]
        own = sum(layer.numel for layer in self.layers)
        total = sum(param.numel() for param in self.model.parameters())
        lines.append(f"prunable: {own:,} of {total:,} parameters ({own / total:.1%})")
        left = left_dense(self.model, [layer.name for layer in self.layers])
        lines += [f"left dense: {name}, {count:,} weights" for name, count in left.items()]
        return "\n".join(lines)

    def lr_scheduler(
        self, shape: str | Callable[[float], float] = "cosine", *, warmup_steps: int = 0
    ) -> PlanScheduler:
        """Return a scheduler whose restarts and constant phases are the plan's.

        Call its `step()` after each `step()` of this, and, with `manual_phases`, after
        `next_phase()`.

        Args:
            shape: "cosine", "linear", "constant", or a function of the share that has passed of a
                schedule, in [0, 1), that returns the factor of the optimiser's rate.
            warmup_steps: linear, at the beginning of each schedule.

        Raises:
            UserError: if the shape is unknown or the warm-up negative.
        """
        self._scheduled = True
        return PlanScheduler(self, shape, warmup_steps)

    def as_optimizer(self) -> SparseOptimizer:
        """Return this as an optimiser, for trainers that own the call of its `step`."""
        return SparseOptimizer(self)

    # -- what torch's optimisers have, for torch.amp.GradScaler and schedulers ---------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups of parameters: `scaler.step(sparsifier)` reads them."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all parameters of the optimiser."""
        self.optimizer.zero_grad(set_to_none)


class SparseOptimizer(torch.optim.Optimizer):
    """A Sparsifier where an optimiser of torch's is wanted: trainers that call `step` themselves.

    Groups of parameters and their state are the inner optimiser's own, so that schedulers of the
    learning rate move both. Its state holds the Sparsifier's.

    Args:
        sparsifier: with the optimiser that it was built with.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        inner = sparsifier.optimizer
        super().__init__(inner.param_groups, inner.defaults)
        self.sparsifier = sparsifier
        self.param_groups = inner.param_groups
        self.state = inner.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do what `Sparsifier.step` does."""
        return self.sparsifier.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset all gradients."""
        self.sparsifier.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the inner optimiser and of the Sparsifier."""
        own = self.sparsifier
        return {"optimizer": own.optimizer.state_dict(), "sparsifier": own.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        inner = self.sparsifier.optimizer
        inner.load_state_dict(state_dict["optimizer"])
        self.sparsifier.load_state_dict(state_dict["sparsifier"])
        self.param_groups, self.state = inner.param_groups, inner.state

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
    """Trains a model sparsely: call `step()` instead of `optimizer.step()`.

    At the end of every phase of the plan, `step()` also prunes and grows. To look at the model
    between training and pruning, set `manual_phases` and call `next_phase()` whenever `phase_ended`
    is True.

    Under data parallelism every rank has its own Sparsifier with the same arguments. Gradients must
    be averaged before `step()`, as `DistributedDataParallel` does. Every mask change verifies that
    masks are equal on all ranks.

    Args:
        model: the module to train; only its weights are changed.
        optimizer: any torch.optim optimiser of the model's parameters.
        method: name of a registered method, or a `Plan`.
        sparsity: fraction of zeros among the prunable weights, in [0, 1); not needed if every
            layer's density is given or learned.
        epochs: the budget in machine-epochs; not needed with a `Plan`.
        steps_per_epoch: optimiser steps of one epoch.
        distribution: how the zeros are spread over layers: uniform, erk or global_magnitude; or
            densities by name or pattern, of which the last match counts; or a function of shapes by
            name and sparsity that returns densities.
        pattern: which masks are allowed: unstructured, "2:4" and other n:m, constant_fan_in, or
            "block:4x1" and other sizes.
        layers: the prunable parameters: names, patterns such as "blocks.*", modules, a function of
            name and parameter, or densities by name; by default all trained weights of convolution
            and linear layers.
        seed: seed of masks, partitions and random growth.
        manual_phases: whether the caller changes phases by `next_phase()`.
        initial: the first masks of plans that start with random masks: "random", or "magnitude",
            which keeps the largest weights of a pretrained model, or the nonzero weights of a
            sparse model. The default is random; the first step then refuses weights with zeros and
            an optimiser with state, unless a state of this Sparsifier was loaded.
        process_group: the ranks that have the model; all ranks by default. A Sparsifier on one rank
            alone needs a group of this rank, else it waits for the other ranks.
        options: options of the method.

    Raises:
        UserError: if a name is unknown or the arguments do not fit together.
    """

    def verify(self, model: nn.Module | None = None) -> int:
        """Check the weights at the plan's end; return the number of active weights that are zero.

        Args:
            model: a model to check instead of the trained model; it has parameters of the same
                names, such as an average of the weights over time.

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
        """Apply the current masks to a model of the same parameter names, such as an average.

        An average over steps with different masks has more nonzero weights than any single model.
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
        """Return a copy of the model's state in which every layer is pruned to its target.

        The copy prunes layers that are dense now by magnitude. The model itself does not change.
        """
        state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        for name, mask in self.sparse_masks().items():
            if name in state:
                state[name].masked_fill_(~mask, 0)
        return state

    def sparse_masks(self) -> dict[str, Tensor]:
        """Return the masks of the state that `sparse_state_dict` returns, by layer name."""
        masks = dict(self.weights.masks)
        over = self.targets.above(self.weights.params, masks)
        if over:
            masks |= self.weights.largest(self.targets.keep(over, masks))
        return masks

    def clip_grad_norm_(self, max_norm: float) -> None:
        """Scale gradients so that their norm over the active weights is at most `max_norm`.

        `torch.nn.utils.clip_grad_norm_` would also count the gradients of masked weights.
        """
        self.weights.clip_gradients(self.model.parameters(), max_norm)

    def release(self) -> None:
        """Release the model for another Sparsifier; this Sparsifier must not be used afterwards."""
        release(self)
        self._caller.stop()
        if self._transformed is not None:
            self._transformed.withdraw()

    def summary(self) -> str:
        """Return a text with the pruned layers, their densities, and the matrices left dense."""
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
        """Return a learning-rate scheduler that follows the plan's restarts and constant phases.

        Call the scheduler's `step()` after each `step()` of the Sparsifier and, with
        `manual_phases`, after each `next_phase()`.

        Args:
            shape: "cosine", "linear", "constant", or a function that maps the elapsed share of a
                schedule, in [0, 1), to a factor of the optimiser's rate.
            warmup_steps: steps of linear warm-up at the beginning of each schedule.

        Raises:
            UserError: if the shape is unknown or the warm-up negative.
        """
        self._scheduled = True
        return PlanScheduler(self, shape, warmup_steps)

    def as_optimizer(self) -> SparseOptimizer:
        """Return this Sparsifier as an optimiser, for trainers that call `optimizer.step`."""
        return SparseOptimizer(self)

    # -- what torch's optimisers have, for torch.amp.GradScaler and schedulers ---------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimiser's parameter groups, which `scaler.step(sparsifier)` reads."""
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all the optimiser's parameters."""
        self.optimizer.zero_grad(set_to_none)


class SparseOptimizer(torch.optim.Optimizer):
    """A Sparsifier as a torch optimiser, for trainers that call `optimizer.step` themselves.

    Both optimisers share the parameter groups and their state, so a learning-rate scheduler of one
    changes both. The state dict also contains the Sparsifier's state.

    Args:
        sparsifier: the Sparsifier, which has the inner optimiser.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        inner = sparsifier.optimizer
        super().__init__(inner.param_groups, inner.defaults)
        self.sparsifier = sparsifier
        self.param_groups = inner.param_groups
        self.state = inner.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Call `Sparsifier.step`."""
        return self.sparsifier.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset all gradients."""
        self.sparsifier.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the inner optimiser and of the Sparsifier."""
        own = self.sparsifier
        return {"optimizer": own.optimizer.state_dict(), "sparsifier": own.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned."""
        inner = self.sparsifier.optimizer
        inner.load_state_dict(state_dict["optimizer"])
        self.sparsifier.load_state_dict(state_dict["sparsifier"])
        self.param_groups, self.state = inner.param_groups, inner.state

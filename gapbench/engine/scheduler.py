"""Learning rates that follow a plan's restarts and its phases of constant rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from gapbench.errors import UserError, choose

if TYPE_CHECKING:
    from gapbench.engine.executor import Executor

Shape = Callable[[float], float]
SHAPES: dict[str, Shape] = {
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "linear": lambda share: 1 - share,
    "constant": lambda _: 1.0,
}


class PlanScheduler:
    """Sets the learning rate of every parameter group; call `step()` after the Sparsifier's.

    Each schedule of the plan starts from the rates of the groups at construction. A schedule spans
    a phase that restarts it, or all phases since the last restart. Phases of constant rate stay at
    the schedule's initial rate.

    Args:
        executor: the executor whose steps are counted.
        shape: shape of one schedule: "cosine", "linear", "constant", or a function that maps the
            elapsed share of the schedule, in [0, 1), to a factor of the rate.
        warmup_steps: steps of linear warm-up of each schedule, at most half of the schedule.

    Raises:
        UserError: if the shape is unknown or the warm-up negative.
    """

    def __init__(self, executor: Executor, shape: str | Shape, warmup_steps: int) -> None:
        if isinstance(shape, str) and shape not in SHAPES:
            raise UserError(f"lr_scheduler: {choose('shape', shape, SHAPES)}")
        if not isinstance(shape, str) and not callable(shape):
            raise UserError(f"lr_scheduler: {shape!r} is neither a shape's name nor a function")
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise UserError(f"warmup_steps: {warmup_steps!r} is not possible: give 0 or more")
        self._executor = executor
        self._shape = SHAPES[shape] if isinstance(shape, str) else shape
        self._warmup = warmup_steps
        self.base_lrs = [float(group["lr"]) for group in executor.optimizer.param_groups]
        self.step()

    def step(self) -> None:
        """Set the learning rates for the next step."""
        own = self._executor
        if own.done or own.phase_ended:  # of the next phase once it is entered
            return
        factor = self._factor()
        for group, base in zip(own.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

    def _factor(self) -> float:
        own = self._executor
        if own.segment.phase.lr == "constant":
            return 1.0
        first, last = (epoch * own.steps_per_epoch for epoch in own.plan.schedule_of(own.segment))
        step, steps = own.steps - first, last - first
        warmup = min(self._warmup, steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        factor = self._shape((step - warmup) / (steps - warmup))
        if not isinstance(factor, Real) or not math.isfinite(factor):
            raise UserError(f"lr_scheduler: its function returned {factor!r}, not a factor")
        return float(factor)

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each parameter group."""
        return [float(group["lr"]) for group in self._executor.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the initial rates; the Sparsifier's state has the position in the schedules."""
        return {"base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned; load the Sparsifier's state before."""
        self.base_lrs = [float(rate) for rate in state["base_lrs"]]
        self.step()

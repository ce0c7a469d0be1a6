"""Learning rates that follow a plan: its restarts, and its phases of constant rate."""

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
    """Sets the rate of every group before the next step; call `step()` after the Sparsifier's.

    Each schedule of the plan begins at the rates that the groups have now. It spans a phase that
    restarts it, or all phases since the last restart; phases of constant rate stay at its start.

    Args:
        executor: whose steps count.
        shape: of one schedule: "cosine", "linear", "constant", or a function of the share of it
            that has passed, in [0, 1), that returns a factor.
        warmup_steps: of each schedule, linear, at most half of it.

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
        """Set the rates of the step that comes next."""
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
            raise UserError(f"lr_scheduler: its function returned {factor!r}, which is no factor")
        return float(factor)

    def get_last_lr(self) -> list[float]:
        """Return the rate of each group."""
        return [float(group["lr"]) for group in self._executor.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the rates that schedules begin at; where they are, the Sparsifier's state says."""
        return {"base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, after the Sparsifier has its own state."""
        self.base_lrs = [float(rate) for rate in state["base_lrs"]]
        self.step()

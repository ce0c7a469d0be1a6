"""The learning rate, as a pure function of where a run stands."""

from __future__ import annotations

import bisect
import math

from gapbench.plan.phases import Plan, Segment
from gapbench.tasks.task import Recipe


def learning_rate(recipe: Recipe, plan: Plan, segment: Segment, step: int, per_epoch: int) -> float:
    """Return the rate of optimiser step `step` (0-based, over the whole run) inside `segment`.

    The schedule spans the phase where the phase restarts it, else the stretch since the last
    restart. Under `lr="constant"` a phase stays at the peak rate; a stretch that begins with such
    phases has its schedule behind them, so that nothing of it passes unused.
    """
    if segment.phase.lr == "constant":
        return recipe.lr
    start, stop = _span(plan, segment)
    return scheduled(recipe, step - start * per_epoch, (stop - start) * per_epoch, per_epoch)


def scheduled(recipe: Recipe, step: int, steps: int, per_epoch: int) -> float:
    """Return the rate of step `step` of a schedule that covers `steps` steps.

    Warm-up is linear from peak / warm-up steps; it takes at most half of the span.
    """
    warmup = max(recipe.warmup_steps, round(recipe.warmup_epochs * per_epoch))
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    match recipe.schedule:
        case "cosine":
            return recipe.lr / 2 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        case "step":
            passed = bisect.bisect_right(recipe.milestones, step / steps)
            return recipe.lr * recipe.decay_factor**passed
        case "inverse_sqrt":
            return recipe.lr * math.sqrt(max(1, warmup) / (step + 1))
        case "constant":
            return recipe.lr


def _span(plan: Plan, segment: Segment) -> tuple[int, int]:
    """Return the first and the last machine-epoch (exclusive) of the schedule around `segment`."""
    if segment.branch is not None:
        return segment.start, segment.stop
    index = plan.segments.index(segment)
    start = index
    while start > 0 and not plan.segments[start].phase.restart:
        start -= 1
    while plan.segments[start].phase.lr == "constant":  # ends at `segment`, which is not
        start += 1
    stop = index + 1
    while stop < len(plan.segments) and not plan.segments[stop].phase.restart:
        stop += 1
    return plan.segments[start].start, plan.segments[stop - 1].stop

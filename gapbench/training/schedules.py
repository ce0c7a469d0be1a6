"""The learning rate as a pure function of the position in a run."""

from __future__ import annotations

import bisect
import math

from gapbench.plan.phases import Plan, Segment
from gapbench.tasks.task import Recipe


def learning_rate(recipe: Recipe, plan: Plan, segment: Segment, step: int, per_epoch: int) -> float:
    """Return the learning rate of step `step` (0-based, over the whole run) inside `segment`.

    A phase with `lr="constant"` stays at the peak rate.
    """
    if segment.phase.lr == "constant":
        return recipe.lr
    start, stop = plan.schedule_of(segment)
    return scheduled(recipe, step - start * per_epoch, (stop - start) * per_epoch, per_epoch)


def scheduled(recipe: Recipe, step: int, steps: int, per_epoch: int) -> float:
    """Return the learning rate of step `step` of a schedule of `steps` steps.

    Warm-up is linear from peak / warm-up steps, and takes at most half of the schedule.
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

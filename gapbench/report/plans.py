"""A text drawing of a plan, which shows when each layer is dense."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from gapbench.plan.phases import Layer, Parallel, Phase, Plan

DENSE, MOVING, FIXED = "█", "▒", "·"
KEY = (
    f"{DENSE} dense   1 2 3 ... dense at this worker   {MOVING} sparse, masks move   "
    f"{FIXED} sparse, masks stay"
)
MOST_NAME = 26  # letters of a layer's name


def plan_lines(plan: Plan, layers: Sequence[Layer], width: int = 80) -> list[str]:
    """Return a line for each run of layers that are dense at the same times, and a time axis.

    Time is wall-clock time: the branches of a P-GaP round are in parallel.

    Args:
        plan: the plan.
        layers: the prunable layers, in model order.
        width: maximum length of a line in characters.
    """
    names = [layer.name for layer in layers]
    drawn = {name: "".join(_states(plan, name)) for name in names}
    head = min(MOST_NAME, max(map(len, names))) + len(" +99 ")
    room = max(10, width - head)
    columns = min(room, plan.wall_epochs * max(1, room // plan.wall_epochs))
    lines = []
    for states, group in itertools.groupby(names, key=drawn.__getitem__):
        first, *others = group
        more = f" +{len(others)}" if others else ""
        lines.append(f"{first[:MOST_NAME]}{more}".ljust(head) + _squeezed(states, columns))
    end = f"{plan.wall_epochs} epochs"
    return [*lines, " " * head + "0" + end.rjust(columns - 1)]


def _states(plan: Plan, name: str) -> Iterator[str]:
    """Yield the state of a layer in every wall-clock epoch."""
    for part in plan.parts:
        if isinstance(part, Phase):
            yield _state(part, name) * part.epochs
        else:
            yield _in_round(part, name)


def _in_round(part: Parallel, name: str) -> str:
    longest = max(branch.epochs for branch in part.branches)
    for number, branch in enumerate(part.branches, 1):
        if name in branch.grow:
            return (str(number % 10) * branch.epochs).ljust(longest, FIXED)
    return _state(part.branches[0], name) * longest


def _state(phase: Phase, name: str) -> str:
    if name in phase.grow:
        return DENSE
    return FIXED if phase.update is None else MOVING


def _squeezed(states: str, columns: int) -> str:
    """Return one letter per column: the state of the layer in the middle of the column."""
    return "".join(states[int((place + 0.5) * len(states) / columns)] for place in range(columns))

"""A plan as a drawing of text: which layers are dense when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from gapbench.plan.phases import Layer, Parallel, Phase, Plan

DENSE, MOVING, FIXED = "█", "▒", "·"
KEY = (
    f"{DENSE} dense   1 2 3 ... dense at that worker   {MOVING} sparse, masks move   "
    f"{FIXED} sparse, masks stay"
)
MOST_NAME = 26  # letters of a layer's name


def plan_lines(plan: Plan, layers: Sequence[Layer], width: int = 80) -> list[str]:
    """Return a line for each run of layers that are dense at the same times, and the time below.

    Time is that of the wall clock: the branches of a round of P-GaP are side by side.

    Args:
        plan: any.
        layers: the prunable layers, in the model's order.
        width: letters that a line may have.
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
    """Yield what a layer is in every epoch of the wall clock."""
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
    """Return one letter a column: what the layer is in its middle."""
    return "".join(states[int((place + 0.5) * len(states) / columns)] for place in range(columns))

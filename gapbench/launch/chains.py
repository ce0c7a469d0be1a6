"""Chains: one trial as several jobs, submitted in advance, each waiting for the one before it.

P-GaP becomes a chain at its rounds, whose branches are then jobs side by side; any other trial
becomes one at the boundaries of its phases, where the time limit is shorter than the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from gapbench.plan.phases import Plan


@dataclass(frozen=True)
class Train:
    """A job that trains, and that merges first what the branches before it have handed back.

    Attributes:
        until: the machine-epoch at which the next job takes over; None for the last one.
        apart: whether branches of rounds are jobs of their own.
    """

    until: int | None
    apart: bool = False


@dataclass(frozen=True)
class Branches:
    """The branches of one P-GaP round, each a job.

    Attributes:
        part: index of the round among the plan's parts.
        count: number of branches.
    """

    part: int
    count: int


Leg = Train | Branches


def legs(plan: Plan, pieces: int, done: float = 0) -> tuple[Leg, ...]:
    """Return the legs that are left of a trial, one alone if it need not be a chain.

    Args:
        plan: of the trial.
        pieces: how many jobs the time limit asks for.
        done: machine-epochs that the trial has done.
    """
    ends = {segment.part: segment.stop for segment in plan.segments}
    rounds = [segment for segment in plan.segments if segment.branch == 0]
    if not rounds:
        left = [until for until in _boundaries(plan, pieces) if until > done]
        return tuple(Train(until) for until in [*left, None])
    found: list[Leg] = []
    for segment in rounds:
        if ends[segment.part] <= done:
            continue
        found.append(Train(segment.start, apart=True))
        found.append(Branches(segment.part, segment.branches))
    return (*found, Train(None, apart=True))


def _boundaries(plan: Plan, pieces: int) -> list[int]:
    """Return the ends of phases that come nearest to `pieces` equal shares of the epochs."""
    ends = [segment.stop for segment in plan.segments[:-1]]
    shares = [plan.epochs * number / pieces for number in range(1, pieces)]
    return sorted({min(ends, key=lambda end: abs(end - share)) for share in shares}) if ends else []

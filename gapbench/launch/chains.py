"""Chains: one trial as several jobs, submitted in advance; each job waits for the job before.

A trial of P-GaP is split at its rounds, whose branches become parallel jobs. Any other trial is
split at boundaries of its phases if the time limit is shorter than the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from gapbench.plan.phases import Plan


@dataclass(frozen=True)
class Train:
    """A job that first merges the results of the branches before it, and then trains.

    Attributes:
        until: the machine-epoch at which the next job takes over; None for the last job.
        apart: whether branches of rounds are separate jobs.
    """

    until: int | None
    apart: bool = False


@dataclass(frozen=True)
class Branches:
    """The branches of one P-GaP round, one job per branch.

    Attributes:
        part: index of the round among the plan's parts.
        count: number of branches.
    """

    part: int
    count: int


Leg = Train | Branches


def legs(plan: Plan, pieces: int, done: float = 0) -> tuple[Leg, ...]:
    """Return the remaining legs of a trial, or one leg if the trial needs no chain.

    Args:
        plan: the trial's plan.
        pieces: number of jobs that the time limit requires.
        done: number of machine-epochs that the trial has done.
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
    """Return the ends of phases that are nearest to `pieces` equal shares of the epochs."""
    ends = [segment.stop for segment in plan.segments[:-1]]
    shares = [plan.epochs * number / pieces for number in range(1, pieces)]
    return sorted({min(ends, key=lambda end: abs(end - share)) for share in shares}) if ends else []

"""Arrangement of trials as jobs: a chain of jobs, one job, or one job for several short trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gapbench.launch import profile
from gapbench.launch.chains import Branches, Leg, legs
from gapbench.launch.jobs import Job
from gapbench.launch.profile import Profile, Shape
from gapbench.runs.store import RunFolder

Pack = tuple[Job, ...]


@dataclass(frozen=True)
class Chain:
    """A trial that becomes several jobs, one after another."""

    job: Job
    shape: Shape
    legs: tuple[Leg, ...]


@dataclass(frozen=True)
class Arrangement:
    """Jobs before their submission.

    Attributes:
        arrays: the jobs of each shape, each job as a pack of trials.
        chains: trials that become chains of jobs.
    """

    arrays: dict[Shape, list[Pack]]
    chains: list[Chain]

    def __str__(self) -> str:
        """Return a text with the numbers of trials and jobs."""
        packs = [pack for packs in self.arrays.values() for pack in packs]
        jobs = len(packs) + sum(
            leg.count if isinstance(leg, Branches) else 1
            for chain in self.chains
            for leg in chain.legs
        )
        return counted(sum(map(len, packs)) + len(self.chains), jobs)


def counted(trials: int, jobs: int) -> str:
    """Return a text with the numbers of trials and jobs."""
    return f"{trials} trial{'s' * (trials != 1)} as {jobs} job{'s' * (jobs != 1)}"


def arrange(jobs: Sequence[Job], chosen: Profile) -> Arrangement:
    """Return the arrangement of trials as jobs on the cluster of a profile.

    Raises:
        UserError: if the profile's number of processes is not the number that a trial needs.
    """
    alike: dict[Shape, list[Job]] = {}
    chains: list[Chain] = []
    for job in jobs:
        alone = profile.shape(job.resources, job.threads, chosen, job.ranks)
        parts = _legs(job, alone, chosen)
        if len(parts) > 1:
            chains.append(Chain(replace(job, branches=1), alone, parts))
        else:
            shape = profile.shape(job.resources, job.threads * job.branches, chosen, job.ranks)
            alike.setdefault(shape, []).append(job)
    return Arrangement({shape: pack(some, shape, chosen) for shape, some in alike.items()}, chains)


def _legs(job: Job, shape: Shape, chosen: Profile) -> tuple[Leg, ...]:
    if not chosen.chain or job.plan is None:
        return ()
    done = RunFolder(job.folder).read_status().get("epoch") or 0
    hours = min(job.expected / 3600, job.resources.hours)
    return legs(job.plan, math.ceil(hours / shape.resources.hours), done)


def pack(jobs: Sequence[Job], shape: Shape, chosen: Profile) -> list[Pack]:
    """Return the trials of one shape grouped into jobs, in the order of the jobs' first trials.

    A job takes further trials as long as its training time stays below the profile's `pack_minutes`
    and its time limit. A trial that alone takes longer, or needs several processes, shares no job.
    """
    limit = shape.resources.hours * 3600 - profile.warning(shape, chosen)
    most = min(chosen.pack_minutes * 60, limit)
    packs: list[list[Job]] = []
    filling: dict[object, tuple[list[Job], float]] = {}
    for job in jobs:
        if job.expected > most or job.ranks * job.branches > 1:
            packs.append([job])
            continue
        kind = (job.threads, job.portable, job.resources)
        filled, load = filling.get(kind, ([], math.inf))
        if load + job.expected > most * side_by_side(job, shape, chosen):
            filled, load = [], 0.0
            packs.append(filled)
        filled.append(job)
        filling[kind] = (filled, load + job.expected)
    return [tuple(filled) for filled in packs]


def side_by_side(job: Job, shape: Shape, chosen: Profile) -> int:
    """Return the number of such trials that a job trains in parallel."""
    wanted = shape.resources
    if wanted.gpus or chosen.gres:
        return 1
    fitting = [wanted.cpus // job.threads, chosen.parallel]
    if chosen.asks_for_memory:
        fitting.append(int(wanted.memory_gb / job.resources.memory_gb))
    return max(1, min(fitting))

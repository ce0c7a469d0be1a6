"""Trials that share a process: their grouping, their number, and the work of the process."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gapbench.launch.jobs import Job, own_signals, set_variables
from gapbench.runs import leases
from gapbench.runs.store import RunFolder


class LanesAttempt:
    """The callable that submitit pickles: attempts of several trials in one process.

    The process begins no further trial once the process that created this object has ended.

    Args:
        jobs: trials that may share a process; other processes may get the same trials.
        at_once: number of trials that are trained in parallel; as many as fit if None.
        gpus: value of CUDA_VISIBLE_DEVICES; None keeps the process's value.

    Attributes:
        name: name of the lanes of the process.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int | None, gpus: str | None = None) -> None:
        self.trials = [
            (str(job.folder), job.ablation, RunFolder(job.folder).attempts) for job in jobs
        ]
        self.portable = jobs[0].portable
        self.name = uuid.uuid4().hex
        self.launcher = leases.this_process()
        self.at_once = at_once
        self.gpus = gpus

    def __call__(self) -> dict[str, str]:
        """Run the attempts; return the final state of each trial."""
        set_variables(self.gpus, self.portable)
        from gapbench.execution.lanes import LaneTrial, run_lanes
        from gapbench.execution.stopping import StopSign

        stop = StopSign()
        trials = [
            LaneTrial(Path(folder), name, partial(untouched, Path(folder), begun))
            for folder, name, begun in self.trials
        ]
        with own_signals():
            stop.raised_by_signals()
            states = run_lanes(
                trials, self.at_once, stop=stop, name=self.name, begins=self._is_followed
            )
        return {str(folder): state for folder, state in states.items()}

    def _is_followed(self) -> bool:
        return leases.runs_here(self.launcher)


def untouched(folder: Path, begun: int) -> bool:
    """Say whether no attempt of a trial has begun since the number of attempts was `begun`."""
    return RunFolder(folder).attempts <= begun


def sharing(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return groups of trials that may share a process, by the kind of process that they need.

    CPU threads and kernels are settings of a process. A trial of several processes or several GPUs
    shares no process, nor does a compiled trial, since torch's compiler is not thread-safe.
    """
    groups: dict[tuple[int, bool, bool], list[Job]] = {}
    for job in jobs:
        large = job.ranks > 1 or job.branches > 1 or job.resources.gpus > 1
        if not large and not job.compiled:
            kind = (job.threads, job.portable, job.resources.gpus > 0)
            groups.setdefault(kind, []).append(job)
    return list(groups.values())


def as_lanes(jobs: Sequence[Job]) -> bool:
    """Say whether trials train in one process on a GPU."""
    return jobs[0].resources.gpus > 0 and len(sharing(jobs)) == 1


def sizes(trials: int, parallel: int | None, room: int, lanes: int | None) -> list[int | None]:
    """Return the number of lanes of each process; None: the process measures what fits.

    Args:
        trials: number of trials of one kind.
        parallel: number of trials to train in parallel, or None.
        room: number of processes that fit the processors and GPUs.
        lanes: number of lanes of a process, or None.
    """
    if lanes is None and parallel is None:
        return [None] * min(room, trials)
    most = min(trials, room * (lanes or 1) if parallel is None else parallel)
    if lanes is not None:
        return [min(lanes, most - first) for first in range(0, most, lanes)]
    processes = min(room, most)
    return [most // processes + (number < most % processes) for number in range(processes)]

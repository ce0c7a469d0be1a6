"""Trials that share a process: which may, how many do, and what their process runs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gapbench.launch.jobs import Job, own_signals, set_variables
from gapbench.runs import leases
from gapbench.runs.store import RunFolder


class LanesAttempt:
    """The callable that submitit pickles: an attempt of each of several trials, in one process.

    It begins no trial any more once the process that made this object has ended.

    Args:
        jobs: trials that may share a process; other processes may be given the same ones.
        at_once: how many are trained side by side; as many as fit if None.
        gpus: value for CUDA_VISIBLE_DEVICES; None leaves the choice to who started the process.

    Attributes:
        name: what the trials that the process has go by.
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
        """Run the attempts; return the state that each trial ended in."""
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
    """Say whether no attempt of a trial has begun since there were `begun`."""
    return RunFolder(folder).attempts <= begun


def sharing(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the trials that may share a process, by the kind of process that they need.

    Threads and kernels are a process's. One of several processes, or of several GPUs, is no small
    one, and torch's compiler is not for several threads.
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
    """Return how many lanes each process has that trains trials of one kind; None: it measures.

    Args:
        trials: how many there are.
        parallel: how many are to be trained side by side, or None.
        room: processes that fit the processors and GPUs.
        lanes: of a process, or None.
    """
    if lanes is None and parallel is None:
        return [None] * min(room, trials)
    most = min(trials, room * (lanes or 1) if parallel is None else parallel)
    if lanes is not None:
        return [min(lanes, most - first) for first in range(0, most, lanes)]
    processes = min(room, most)
    return [most // processes + (number < most % processes) for number in range(processes)]

"""Execution of trials on this machine: submitit jobs in separate processes, some in parallel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbench.base.children import started_safely
from gapbench.errors import UserError
from gapbench.launch.jobs import Attempt, Job, executor
from gapbench.launch.lanes import LanesAttempt, sharing, sizes
from gapbench.runs.store import RunFolder

STOP_SECONDS = 120.0
SURVEY_SECONDS = 30.0
YEAR = 60 * 24 * 365  # minutes; submitit's own limit must never be what ends a local trial


@dataclass(frozen=True)
class Work:
    """The work of one process: one trial, or several trials as lanes.

    Attributes:
        jobs: the trials; other processes may have the same trials, and take trials that are left.
        lanes: number of trials that are trained in parallel; None: as many as fit.
    """

    jobs: tuple[Job, ...]
    lanes: int | None = 1


@dataclass(frozen=True)
class Running:
    """A running process, the name of its lanes, and its GPUs."""

    work: Work
    lanes: str
    handle: Any
    gpus: tuple[str, ...]


@executor("local")
class LocalLaunch:
    """Runs jobs through submitit's local executor.

    Trials whose task asks for GPUs get one GPU per rank, or the CPU on a machine without GPUs.
    Other trials see no GPU, so that they compute the same results on every machine.

    Args:
        jobs: the trials to run.
        parallel: number of trials that run in parallel; by default as many as fit the processors
            and GPUs.
        lanes: number of trials that share a process, if they can; by default one on the CPU, and on
            a GPU as many as `parallel` asks for or fit its memory.
    """

    told = ""

    def __init__(self, jobs: Sequence[Job], parallel: int | None, lanes: int | None = None) -> None:
        self._gpus = tuple(gpus()) if any(job.resources.gpus for job in jobs) else ()
        for job in jobs:
            if job.resources.gpus and 0 < len(self._gpus) < job.ranks:
                raise UserError(
                    f"{job.label}: {job.ranks} processes need a GPU each, and this machine has "
                    f"{len(self._gpus)}: give --set recipe.ranks={len(self._gpus)}, which makes "
                    "other trials with other numbers"
                )
        room = min(self._room(job) for job in jobs)
        self.parallel = parallel or room * (lanes or 1)
        self._waiting = deque(works(jobs, parallel, room, lanes, bool(self._gpus)))
        self._running: list[Running] = []
        # a plain `kill`, or the end of a SLURM job around us, stops trials as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    def poll(self) -> bool:
        """Start waiting trials if there is room; return whether trials are left."""
        self._running = [running for running in self._running if not running.handle.done()]
        while self._waiting and self._has_room(self._waiting[0]):
            work = self._waiting.popleft()
            chosen = self._choose_gpus(work.jobs[0])
            self._running.append(_submit(work, chosen))
        return bool(self._running)

    def stop(self) -> str:
        """Send SIGTERM to the trials' own processes and wait for their checkpoints."""
        self._waiting.clear()
        deadline = time.monotonic() + STOP_SECONDS
        told: set[Path] = set()
        while self.poll() and time.monotonic() < deadline:
            for running in self._running:
                for folder in {job.folder for job in running.work.jobs} - told:
                    if RunFolder(folder).terminate_owner(running.lanes):
                        told.add(folder)
            time.sleep(0.05)
        for running in self._running:
            running.handle.cancel()
        return "run the same command again to go on"

    def _has_room(self, work: Work) -> bool:
        """Say whether a process can begin; a process with unknown lanes counts as one trial."""
        going = sum(running.work.lanes or 1 for running in self._running)
        return not going or going + (work.lanes or 1) <= self.parallel

    def _room(self, job: Job) -> int:
        fitting = processors() // (job.threads * job.branches * job.ranks)
        if job.resources.gpus and self._gpus:
            fitting = min(fitting, len(self._gpus) // job.ranks)
        return max(1, fitting)

    def _choose_gpus(self, job: Job) -> tuple[str, ...]:
        """Return the GPUs for a trial, starting with the least used GPUs."""
        used = [gpu for running in self._running for gpu in running.gpus]
        return tuple(sorted(self._gpus, key=used.count)[: job.ranks if job.resources.gpus else 0])


def works(
    jobs: Sequence[Job], parallel: int | None, room: int, lanes: int | None, with_gpus: bool
) -> Iterator[Work]:
    """Yield the work of each process, starting with processes of several trials.

    Args:
        jobs: all trials.
        parallel: as for `LocalLaunch`.
        room: number of processes that fit the processors and GPUs.
        lanes: as for `LocalLaunch`.
        with_gpus: whether trials that ask for a GPU get one.
    """
    together: set[Path] = set()
    for group in sharing(jobs):
        on_gpu = with_gpus and group[0].resources.gpus > 0
        if len(group) > 1 and lanes != 1 and (lanes is not None or on_gpu):
            together |= {job.folder for job in group}
            for size in sizes(len(group), parallel, room, lanes):
                yield Work(tuple(group), size)
    for job in jobs:
        if job.folder not in together:
            yield Work((job,))


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--list-gpus"]
    try:
        listing = subprocess.run(words, capture_output=True, text=True, timeout=SURVEY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):  # a driver in trouble answers nothing
        return []
    lines = [line for line in listing.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def _submit(work: Work, chosen: tuple[str, ...]) -> Running:
    """Start a process."""
    import submitit

    first, gpus = work.jobs[0], ",".join(chosen)
    folder = RunFolder(first.folder)
    if len(work.jobs) == 1:
        attempt: Callable[[], object] = Attempt(first, first.ranks, gpus)
        place, name = folder.jobs, ""
    else:
        attempt = together = LanesAttempt(work.jobs, work.lanes, gpus)
        place, name = folder.lanes, together.name
    local = submitit.LocalExecutor(place)
    local.update_parameters(timeout_min=YEAR, stderr_to_stdout=True, tasks_per_node=first.ranks)
    with _children_ignore_interrupts(), started_safely():
        return Running(work, name, local.submit(attempt), chosen)


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C does not end.

    The terminal sends Ctrl-C to all processes, and submitit's controller would kill a trial one
    second later. A trial handles the signal itself as soon as it can write a checkpoint.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""Trials on this machine: each a submitit job in processes of its own, a few side by side."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapbench.base.children import started_safely
from gapbench.errors import UserError
from gapbench.launch.jobs import Attempt, Job, executor
from gapbench.runs.store import RunFolder

STOP_SECONDS = 120.0
SURVEY_SECONDS = 30.0
YEAR = 60 * 24 * 365  # minutes; submitit's own limit must never be what ends a local trial


@dataclass(frozen=True)
class Running:
    """A trial that has a process."""

    job: Job
    handle: Any
    gpus: tuple[str, ...]


@executor("local")
class LocalLaunch:
    """Runs jobs through submitit's local executor.

    Trials whose task asks for GPUs get one a rank, or share none if the machine has none; the
    others see none, so that they compute the same wherever they run.

    Args:
        jobs: trials to run.
        parallel: how many side by side; as many as fit the processors and GPUs by default.
    """

    told = ""

    def __init__(self, jobs: Sequence[Job], parallel: int | None) -> None:
        self._gpus = tuple(gpus()) if any(job.resources.gpus for job in jobs) else ()
        for job in jobs:
            if job.resources.gpus and 0 < len(self._gpus) < job.ranks:
                raise UserError(
                    f"{job.label}: {job.ranks} processes want a GPU each, and there are "
                    f"{len(self._gpus)}: give --set recipe.ranks={len(self._gpus)}, which makes "
                    "other trials: their numbers differ"
                )
        self.parallel = parallel or min(self._room(job) for job in jobs)
        self._waiting = deque(jobs)
        self._running: list[Running] = []
        # a plain `kill`, or the end of a SLURM job around us, stops trials as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    def poll(self) -> bool:
        """Start waiting trials where there is room; say whether any is left."""
        self._running = [running for running in self._running if not running.handle.done()]
        while self._waiting and len(self._running) < self.parallel:
            job = self._waiting.popleft()
            chosen = self._choose_gpus(job)
            self._running.append(Running(job, _submit(job, chosen), chosen))
        return bool(self._running)

    def stop(self) -> str:
        """Send SIGTERM to the trials' own processes and wait for their checkpoints."""
        self._waiting.clear()
        deadline = time.monotonic() + STOP_SECONDS
        told: set[Path] = set()
        while self.poll() and time.monotonic() < deadline:
            for running in self._running:
                folder = running.job.folder
                if folder not in told and RunFolder(folder).terminate_owner():
                    told.add(folder)
            time.sleep(0.05)
        for running in self._running:
            running.handle.cancel()
        return "run the same command again to go on"

    def _room(self, job: Job) -> int:
        fitting = processors() // (job.threads * job.branches * job.ranks)
        if job.resources.gpus and self._gpus:
            fitting = min(fitting, len(self._gpus) // job.ranks)
        return max(1, fitting)

    def _choose_gpus(self, job: Job) -> tuple[str, ...]:
        """Return the GPUs of a trial, those first that the fewest trials use."""
        used = [gpu for running in self._running for gpu in running.gpus]
        return tuple(sorted(self._gpus, key=used.count)[: job.ranks if job.resources.gpus else 0])


def processors() -> int:
    """Return how many processors this process may use."""
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


def _submit(job: Job, chosen: tuple[str, ...]) -> Any:
    import submitit

    local = submitit.LocalExecutor(RunFolder(job.folder).jobs)
    local.update_parameters(timeout_min=YEAR, stderr_to_stdout=True, tasks_per_node=job.ranks)
    with _children_ignore_interrupts(), started_safely():
        return local.submit(Attempt(job, job.ranks, gpus=",".join(chosen)))


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C does not end.

    The terminal sends it to all of them, and submitit's controller would kill a trial one second
    later. A trial handles the signal itself as soon as it can write a checkpoint.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

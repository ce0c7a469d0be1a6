"""Trials on this machine: each a submitit job in processes of its own, a few side by side."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from gapbench.experiments.marks import read_json
from gapbench.launch.jobs import Attempt, Job, executor

STOP_SECONDS = 60.0
YEAR = 60 * 24 * 365  # minutes; submitit's own limit must never be what ends a local trial


@executor("local")
class LocalLaunch:
    """Runs jobs through submitit's local executor.

    Args:
        jobs: trials to run.
        parallel: how many side by side; as many as fit the processors by default.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int | None) -> None:
        widest = max((job.threads * job.branches for job in jobs), default=1)
        self.parallel = parallel or max(1, processors() // widest)
        self._waiting = deque(jobs)
        self._running: list[tuple[Job, Any]] = []

    def poll(self) -> bool:
        """Start waiting trials where there is room; say whether any is left."""
        self._running = [(job, handle) for job, handle in self._running if not handle.done()]
        while self._waiting and len(self._running) < self.parallel:
            job = self._waiting.popleft()
            self._running.append((job, _submit(job)))
        return bool(self._running)

    def stop(self) -> None:
        """Send SIGTERM to the trials' own processes and wait for their checkpoints."""
        self._waiting.clear()
        deadline = time.monotonic() + STOP_SECONDS
        told: set[int] = set()
        while self.poll() and time.monotonic() < deadline:
            for job, _ in self._running:
                owner = read_json(job.folder / "owner.json")
                if owner is not None and owner["pid"] not in told:
                    told.add(owner["pid"])
                    _terminate(owner["pid"])
            time.sleep(0.05)
        for _, handle in self._running:
            handle.cancel()


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _submit(job: Job) -> Any:
    import submitit

    local = submitit.LocalExecutor(job.folder / "submitit")
    local.update_parameters(timeout_min=YEAR, stderr_to_stdout=True)
    return local.submit(Attempt(job))


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return

"""Execution of trials in this process, one after another, for debuggers and tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gapbench.launch.jobs import Attempt, Job, executor


@executor("debug")
class DebugLaunch:
    """Runs one job at each `poll`.

    Args:
        jobs: the trials to run.
        parallel: unused; there is one process.
    """

    told = ""

    def __init__(self, jobs: Sequence[Job], parallel: int | None) -> None:
        self._waiting = deque(jobs)

    def poll(self) -> bool:
        """Run the next trial to its end; return whether trials are left."""
        if self._waiting:
            job = self._waiting.popleft()
            state = Attempt(job, gpus=None if job.resources.gpus else "")()
            if state == "interrupted":
                raise KeyboardInterrupt
        return bool(self._waiting)

    def stop(self) -> str:
        """Forget the trials that have not begun."""
        self._waiting.clear()
        return "run the same command again to go on"

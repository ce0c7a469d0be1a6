"""Trials in this very process, one after another: for a debugger, and for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gapbench.launch.jobs import Attempt, Job, executor


@executor("debug")
class DebugLaunch:
    """Runs one job at each `poll`.

    Args:
        jobs: trials to run.
        parallel: not used; there is one process.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int | None) -> None:
        self._waiting = deque(jobs)

    def poll(self) -> bool:
        """Run the next trial to its end; say whether any is left."""
        if self._waiting:
            state = Attempt(self._waiting.popleft())()
            if state == "interrupted":
                self._waiting.clear()
                raise KeyboardInterrupt
        return bool(self._waiting)

    def stop(self) -> None:
        """Forget the trials that have not begun."""
        self._waiting.clear()

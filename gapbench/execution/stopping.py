"""How a process that trains is asked to stop: signals raise a flag, which the loop looks at."""

from __future__ import annotations

import signal
import types

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopSign:
    """A flag that signals raise and that nothing lowers; all work is left to the loop."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Say whether a signal has come."""
        return self.asked

    def raised_by_signals(self) -> None:
        """Raise the flag on the signals of a time limit, a preemption or a person."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._raise)

    def _raise(
        self,
        number: int,
        frame: types.FrameType | None,
    ) -> None:
        self.asked = True

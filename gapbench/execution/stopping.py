"""Requests to stop a training process: signals raise a flag, which the loop checks."""

from __future__ import annotations

import signal
import types

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopSign:
    """A flag that signals raise and nothing lowers; the loop acts on the flag."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Say whether a signal has arrived."""
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

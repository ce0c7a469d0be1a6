"""A lock for global state of a process: torch's default generator, and Sacred's seeding.

Several trials may train in one process, one thread per trial. The loop seeds the default generator
before every step. So a trial draws its own numbers if no other trial draws or seeds before the end
of the step. On a GPU the step ends in this sense with the launch of its kernels, since a kernel
gets its random state at launch.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ContextDecorator
from types import TracebackType

HANDED_OVER = 0  # a holder that has been chosen and has not woken yet; no thread's number


class Turn(ContextDecorator):
    """A re-entrant lock that threads get in the order of their requests.

    Use the lock in a `with` block, or as the decorator of a function. `threading.RLock` would go to
    the quickest thread, which is mostly the thread that has just released the lock; the other
    threads would starve.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._holder: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._holder == me:  # nobody else can make this true or false
            self._depth += 1
            return
        with self._guard:
            place = None if self._holder is None else threading.Lock()
            if place is None:
                self._holder = me
            else:
                place.acquire()
                self._waiting.append(place)
        if place is not None:
            place.acquire()  # until `__exit__` hands the turn over
            self._holder = me
        self._depth = 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        with self._guard:
            if self._waiting:
                self._holder = HANDED_OVER
                self._waiting.popleft().release()
            else:
                self._holder = None


TURN = Turn()

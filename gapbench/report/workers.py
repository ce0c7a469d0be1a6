"""Work in other processes, and without the garbage collector: what thousands of runs need."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

PARENT_SECONDS = 0.5  # between two looks at whether it lives

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return what `work` returns for each item, in order; a process a core takes them in turn.

    Work and items may be anything, what is returned is pickled.
    """
    workers = min(len(items), len(os.sched_getaffinity(0)))
    if workers < 2:
        return [work(item) for item in items]
    fork = multiprocessing.get_context("fork")  # hands on what is known here without copying it
    gc.freeze()  # a collection in the children would copy every page of what is known here
    try:
        with ProcessPoolExecutor(workers, fork, _keep, (work, items)) as pool:
            return list(pool.map(_work_on, range(len(items))))
    finally:
        gc.unfreeze()


_kept: list[tuple[Callable[..., Any], Sequence[Any]]] = []  # in a process of the pool


def _keep(work: Callable[..., Any], items: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _kept.append((work, items))


def _end_with(parent: int) -> None:
    """Leave when the process that waits was killed: the pool would wait for its words for ever."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _work_on(place: int) -> Any:
    work, items = _kept[-1]
    return work(items[place])


@contextmanager
def without_gc() -> Iterator[None]:
    """Do without the collector of cycles; also a decorator.

    Where many documents are read and kept, it goes through all of them again and again, and takes
    as long as the reading.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

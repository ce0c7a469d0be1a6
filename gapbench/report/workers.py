"""Work on many items: side by side, beside other work, and without looking for garbage."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return what `work` returns for each item, in order; a process a core takes them in turn.

    The processes are forked, so that `work` and the items may be anything; what it returns is
    pickled.
    """
    workers = min(len(items), len(os.sched_getaffinity(0)))
    if workers < 2:
        return [work(item) for item in items]
    gc.freeze()  # a collection in the children would copy every page of what is known here
    try:
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, fork, _keep, (work, items)) as pool:
            return list(pool.map(_work_on, range(len(items))))
    finally:
        gc.unfreeze()


@contextmanager
def uncollected() -> Iterator[None]:
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


@contextmanager
def beside(work: Callable[[], R]) -> Iterator[Callable[[], R]]:
    """Do `work` in a forked process while the block runs; what it is given waits for the result.

    On one core that call does the work.
    """
    if len(os.sched_getaffinity(0)) < 2:
        yield work
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, fork, _keep, (lambda _: work(), (None,))) as pool:
        yield pool.submit(_work_on, 0).result


_kept: list[tuple[Callable[..., Any], Sequence[Any]]] = []  # in a process of the pool


def _keep(work: Callable[..., Any], items: Sequence[Any]) -> None:
    _kept.append((work, items))


def _work_on(place: int) -> Any:
    work, items = _kept[-1]
    return work(items[place])

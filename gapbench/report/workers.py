"""Work in other processes, and without the garbage collector: what thousands of runs need."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# what is forked hands all that is known here on without copying it
FORK = multiprocessing.get_context("fork")


def parallel_map(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return what `work` returns for each item, in order; a process a core takes them in turn.

    Work and items may be anything, what is returned is pickled.
    """
    workers = min(len(items), _cores())
    if workers < 2:
        return [work(item) for item in items]
    gc.freeze()  # a collection in the children would copy every page of what is known here
    try:
        with ProcessPoolExecutor(workers, FORK, _keep, (work, items)) as pool:
            return list(pool.map(_work_on, range(len(items))))
    finally:
        gc.unfreeze()


_kept: list[tuple[Callable[..., Any], Sequence[Any]]] = []  # in a process of the pool


def _keep(work: Callable[..., Any], items: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    _kept.append((work, items))


def _work_on(place: int) -> Any:
    work, items = _kept[-1]
    return work(items[place])


@contextmanager
def in_background(work: Callable[[], R]) -> Iterator[Callable[[], R]]:
    """Do `work` in a forked process while the block runs; the block gets what waits for its result.

    That call raises what the work raised. On one core it does the work itself, and also where the
    process died.
    """
    if _cores() < 2:
        yield work
        return
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_send, args=(work, receiver, sender))
    child.start()
    sender.close()

    def result() -> R:
        try:
            failed, value = receiver.recv()
        except EOFError:
            return work()
        if failed:
            raise value
        return value  # type: ignore[no-any-return]

    try:
        yield result
    finally:
        receiver.close()  # if nobody has asked for the result, the child ends at the closed pipe
        child.join()


def _send(work: Callable[[], object], receiver: Connection, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    receiver.close()
    message: tuple[bool, object]
    try:
        message = False, work()
    except Exception as error:
        message = True, error
    with suppress(BrokenPipeError):
        sender.send(message)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


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

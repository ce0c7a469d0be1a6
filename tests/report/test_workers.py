"""Work in other processes, and without the garbage collector."""

from __future__ import annotations

import gc
import os
import signal
import time

import pytest

from gapbench.report.workers import parallel_map, without_gc
from tests.runs import in_child
from tests.slurm.cluster import alive, wait_until


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))
    return request.param


def test_results_come_in_the_order_of_the_items(cores):
    here = os.getpid()
    found = parallel_map(lambda item: (item * 2, os.getpid() == here), [3, 1, 2])
    assert found == [(6, cores == 1), (2, cores == 1), (4, cores == 1)]
    assert parallel_map(len, []) == []


def test_an_interrupt_is_left_to_the_process_that_waits(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def wait():
        for _ in range(100):
            if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
                os.kill(os.getpid(), signal.SIGINT)
                return "went on"
            time.sleep(0.05)
        return "would have been interrupted"

    assert parallel_map(lambda _: wait(), [0, 1]) == ["went on"] * 2


def test_workers_end_when_the_process_that_waits_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def work(item):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    child = in_child(parallel_map, work, [0, 1])
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 30, "the workers")
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(alive(pid) for pid in workers), 10, "their end")


def test_the_collector_is_as_it_was_also_after_an_error():
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(KeyError), without_gc():
                assert not gc.isenabled()
                raise KeyError
            assert gc.isenabled() == enabled
        finally:
            gc.enable()

"""Processes beside the one that reports."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.errors import UserError
from gapbench.report import workers
from gapbench.report.workers import in_background, parallel_map, without_gc


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))
    return request.param


def test_results_come_in_the_order_of_the_items(cores):
    here = os.getpid()
    found = parallel_map(lambda item: (item * 2, os.getpid() == here), [3, 1, 2])
    assert found == [(6, cores == 1), (2, cores == 1), (4, cores == 1)]
    assert parallel_map(len, []) == []


def test_work_in_the_background_gives_its_result_or_its_error(cores):
    with in_background(lambda: os.getpid()) as result:
        assert (result() == os.getpid()) == (cores == 1)

    def refuse():
        raise UserError("no such folder")

    with pytest.raises(UserError, match="no such folder"), in_background(refuse) as result:
        result()


def test_a_result_nobody_asks_for_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(KeyError), in_background(lambda: "x" * 10_000_000):
        raise KeyError
    assert not workers.multiprocessing.active_children()


def test_the_work_is_done_here_where_its_process_dies(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    here = os.getpid()

    def die():
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    with in_background(die) as result:
        assert result() == "done"


def test_an_interrupt_is_left_to_the_process_that_waits(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def wait():
        for _ in range(100):
            if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
                os.kill(os.getpid(), signal.SIGINT)
                return "went on"
            time.sleep(0.05)
        return "would have been interrupted"

    with in_background(wait) as result:
        assert result() == "went on"
    assert parallel_map(lambda _: wait(), [0, 1]) == ["went on"] * 2


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


def test_what_the_reading_process_refuses_is_one_line(tmp_path: Path, capfd):
    (tmp_path / "runs").write_text("")
    words = ["report", "ablations/partitions.yaml", "--results", str(tmp_path)]
    assert main(words) == 2
    told = capfd.readouterr().err.splitlines()
    assert told[-1].endswith(f"{tmp_path}/runs: cannot be listed: Not a directory")
    assert not any("Traceback" in line for line in told)

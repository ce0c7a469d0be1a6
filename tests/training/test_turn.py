"""Turns of threads: in the order of asking, re-entrant, and handed on after an error."""

from __future__ import annotations

import threading
import time

import pytest

from gapbench.training.turn import Turn


def started(*functions):
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def test_threads_that_ask_all_the_time_take_turns_one_by_one():
    turn, order, together = Turn(), [], threading.Barrier(3)

    def work(name):
        together.wait(10)
        for _ in range(50):
            with turn:
                order.append(name)
                time.sleep(0.001)  # long enough for the others to ask

    threads = started(*(lambda name=name: work(name) for name in "abc"))
    for thread in threads:
        thread.join(30)
    assert len(order) == 150
    middle = "".join(order[15:-15])
    assert middle == (middle[:3] * 50)[: len(middle)]  # nobody twice before all others
    assert len(set(middle[:3])) == 3


def test_only_the_outermost_end_of_a_turn_hands_it_on():
    turn, entered, came = Turn(), threading.Event(), threading.Event()

    def other():
        entered.set()
        with turn:
            came.set()

    with turn:
        with turn:
            (thread,) = started(other)
            assert entered.wait(10)
        assert not came.wait(0.1)
    assert came.wait(10)
    thread.join(10)


def test_a_turn_that_ends_in_an_error_is_handed_on():
    turn, came = Turn(), threading.Event()

    def fails():
        with turn:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()

    def other():
        with turn:
            came.set()

    started(other)
    assert came.wait(10)

"""How trials are cut into jobs that follow each other."""

from __future__ import annotations

import pytest

from gapbench.launch.chains import Branches, Train, legs
from gapbench.methods.method import plan
from gapbench.plan.phases import Layer

LAYERS = tuple(Layer(f"{number}.weight", (10, 10)) for number in range(8))


def test_p_gap_is_cut_at_its_rounds():
    rounds = plan("p_gap", LAYERS, 14, partitions=3, rounds=2, step_epochs=2)
    assert legs(rounds, 1) == (
        Train(0, apart=True),
        Branches(0, 3),
        Train(6, apart=True),
        Branches(1, 3),
        Train(None, apart=True),
    )


@pytest.mark.parametrize(
    ("pieces", "untils"),
    [(1, [None]), (2, [6, None]), (3, [4, 8, None]), (99, [2, 4, 6, 8, None])],
)
def test_c_gap_is_cut_where_its_steps_end(pieces, untils):
    steps = plan("c_gap", LAYERS, 12, partitions=2, steps=4, step_epochs=2)
    assert legs(steps, pieces) == tuple(Train(until) for until in untils)


def test_a_run_of_one_phase_is_left_in_one_piece():
    assert legs(plan("dense", LAYERS, 10), 4) == (Train(None),)


def test_what_is_done_is_not_submitted_again():
    rounds = plan("p_gap", LAYERS, 14, partitions=3, rounds=2, step_epochs=2)
    assert legs(rounds, 1, done=6) == (
        Train(6, apart=True),
        Branches(1, 3),
        Train(None, apart=True),
    )
    assert legs(rounds, 1, done=12.5) == (Train(None, apart=True),)
    steps = plan("c_gap", LAYERS, 12, partitions=2, steps=4, step_epochs=2)
    assert legs(steps, 3, done=5.5) == (Train(8), Train(None))

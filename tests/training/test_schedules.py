"""Learning rates at 0, 1, a boundary and its neighbours, and over restarts."""

from __future__ import annotations

import math

import pytest

from gapbench.plan.phases import Parallel, Phase, Plan
from gapbench.tasks.task import Recipe
from gapbench.training.schedules import learning_rate, scheduled


def recipe(**changes):
    return Recipe(**{"epochs": 10, "batch_size": 4, "lr": 0.8, **changes})


def all_rates(plan):
    """Return the rate of every step of a plan at 10 steps an epoch."""
    return [
        learning_rate(recipe(), plan, segment, step, 10)
        for segment in plan.segments
        for step in range(segment.start * 10, segment.stop * 10)
    ]


def test_cosine_starts_at_the_peak_and_ends_near_zero():
    cosine = recipe()
    assert scheduled(cosine, 0, 100, 10) == 0.8
    assert scheduled(cosine, 50, 100, 10) == pytest.approx(0.4)
    assert scheduled(cosine, 99, 100, 10) == pytest.approx(0.4 * (1 + math.cos(0.99 * math.pi)))


def test_warmup_is_linear_and_hands_over_at_the_peak():
    warm = recipe(warmup_epochs=2.0)
    assert [scheduled(warm, step, 100, 10) for step in (0, 1, 19, 20)] == pytest.approx(
        [0.04, 0.08, 0.8, 0.8]
    )


def test_warmup_takes_at_most_half_of_a_short_phase():
    warm = recipe(warmup_epochs=8.0, schedule="constant")
    assert scheduled(warm, 9, 20, 10) == pytest.approx(0.8)
    assert scheduled(warm, 4, 20, 10) == pytest.approx(0.4)


def test_milestones_are_fractions_so_that_an_m_fold_run_stretches_them():
    steps = recipe(schedule="step", milestones=[0.3, 0.7, 0.9])
    for length in (100, 500):
        rates = [scheduled(steps, int(f * length), length, 10) for f in (0.29, 0.3, 0.7, 0.9)]
        assert rates == pytest.approx([0.8, 0.08, 0.008, 0.0008])


def test_inverse_square_root_halves_after_four_times_the_warmup():
    inverse = recipe(schedule="inverse_sqrt", warmup_steps=10)
    assert scheduled(inverse, 9, 1000, 10) == pytest.approx(0.8)
    assert scheduled(inverse, 39, 1000, 10) == pytest.approx(0.4)


def test_a_phase_that_restarts_has_a_schedule_of_its_own():
    plan = Plan((Phase(2), Phase(3, label="b")))
    first, second = plan.segments
    assert learning_rate(recipe(), plan, first, 19, 10) < 0.02
    assert learning_rate(recipe(), plan, second, 20, 10) == 0.8


def test_without_restarts_one_schedule_spans_the_run():
    plan = Plan((Phase(2, restart=False), Phase(3, restart=False)))
    rates = all_rates(plan)
    assert rates == sorted(rates, reverse=True)
    assert rates[25] == pytest.approx(0.4)


def test_a_constant_phase_stays_at_the_peak():
    plan = Plan((Phase(2, lr="constant"), Phase(3)))
    assert learning_rate(recipe(), plan, plan.segments[0], 19, 10) == 0.8


@pytest.mark.parametrize("restart", [True, False])
def test_restarting_or_not_a_fine_tune_after_constant_phases_has_the_whole_schedule(restart):
    steps = [Phase(2, restart=restart, lr="constant"), Phase(2, restart=restart, lr="constant")]
    rates = all_rates(Plan((*steps, Phase(4, restart=restart))))
    assert rates[:41] == [0.8] * 41
    assert rates[60] == pytest.approx(0.4)
    assert rates[79] < 0.01


def test_every_branch_of_a_round_has_the_same_schedule():
    plan = Plan((Parallel((Phase(2), Phase(2))), Phase(1)))
    a, b, _ = plan.segments
    rates = [
        [learning_rate(recipe(), plan, s, s.start * 10 + t, 10) for t in range(20)] for s in (a, b)
    ]
    assert rates[0] == rates[1]

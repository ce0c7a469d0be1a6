"""The plans of the registered methods: the paper's epochs, and who is dense when."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from gapbench.errors import UserError
from gapbench.methods.method import methods, options_model, plan
from gapbench.plan.phases import Layer, Parallel

LAYERS = tuple(Layer(f"l{i}.weight", (8, 4 + i)) for i in range(10))
NAMES = {layer.name for layer in LAYERS}


@pytest.mark.parametrize("name", list(methods))
def test_every_method_spends_exactly_its_budget_with_its_default_options(name):
    built = plan(name, LAYERS, 120)
    assert built.epochs == 120
    assert built.segments[-1].stop == 120
    assert (built.dense_at_end == NAMES) == (name in ("dense", "small_dense"))


@pytest.mark.parametrize("name", list(methods))
def test_a_plan_depends_on_its_seed_alone(name):
    assert plan(name, LAYERS, 120, seed=3) == plan(name, LAYERS, 120, seed=3)


def test_c_gap_of_990_epochs_is_28_steps_of_30_and_a_fine_tune_of_150():
    built = plan("c_gap", LAYERS, 990, partitions=4)
    assert [s.phase.epochs for s in built.segments] == [30] * 28 + [150]
    assert built.wall_epochs == 990


def test_p_gap_of_1110_machine_epochs_takes_390_epochs_of_wall_clock():
    built = plan("p_gap", LAYERS, 1110, partitions=4)
    assert sum(isinstance(part, Parallel) for part in built.parts) == 8
    assert [s.phase.epochs for s in built.segments] == [30] * 32 + [150]
    assert built.wall_epochs == 390


def test_transformer_plan_has_one_initial_step_and_ten_rounds():
    built = plan("c_gap", LAYERS, 350, partitions=3, step_epochs=10, steps=31)
    assert [s.phase.epochs for s in built.segments] == [10] * 31 + [40]


@pytest.mark.parametrize("kappa", [1, 2, 3, 4, 10])
def test_cyclic_steps_take_the_partitions_in_turn_and_cover_all_layers_in_one_round(kappa):
    built = plan("c_gap", LAYERS, 990, partitions=kappa)
    grown = [s.phase.grow for s in built.segments[:-1]]
    assert all(a == b for a, b in zip(grown, grown[kappa:], strict=False))
    assert frozenset.union(*grown[:kappa]) == NAMES
    assert sum(len(group) for group in grown[:kappa]) == len(NAMES)


def test_random_steps_grow_a_kappa_th_of_the_layers_and_none_twice_running():
    built = plan("c_gap", LAYERS, 990, partitions=4, strategy="random", seed=1)
    grown = [s.phase.grow for s in built.segments[:-1]]
    assert {len(group) for group in grown} == {3}
    assert not any(a & b for a, b in itertools.pairwise(grown))
    other = plan("c_gap", LAYERS, 990, partitions=4, strategy="random", seed=2)
    assert grown != [s.phase.grow for s in other.segments[:-1]]


def test_random_growth_needs_about_twelve_steps_to_reach_99_percent_of_40_layers():
    layers = tuple(Layer(f"l{i}", (4, 4)) for i in range(40))
    needed = []
    for seed in range(200):
        built = plan("c_gap", layers, 990, partitions=4, strategy="random", seed=seed)
        seen: set[str] = set()
        coverage = []
        for segment in built.segments[:-1]:
            seen |= segment.phase.grow
            coverage.append(len(seen) / 40)
        needed.append(coverage)
    expected = [sum(run[step] for run in needed) / len(needed) for step in range(28)]
    first = next(step for step, value in enumerate(expected, 1) if value >= 0.99)
    assert 10 <= first <= 16  # 12 with independent draws is below; cyclic needs 4


def test_ac_dc_has_the_phases_of_its_paper_at_100_epochs():
    built = plan("ac_dc", LAYERS, 100)
    dense = [(s.start, s.stop) for s in built.segments if s.phase.grow]
    assert dense[0] == (0, 10)
    assert dense[1] == (15, 20)
    assert dense[-1] == (75, 85)
    assert not any(s.phase.restart for s in built.segments)


def test_more_epochs_stretch_rigl():
    built = plan("rigl", LAYERS, 500)
    assert built.epochs == 500
    update = built.segments[0].phase.update
    assert update.every == 100
    assert not update.due(int(0.75 * 1000), 1000)
    assert update.due(700, 1000)


@pytest.mark.parametrize(
    ("name", "epochs", "options", "message"),
    [
        ("c_gap", 10, {"steps": 5, "step_epochs": 2}, "5 steps of 2 and a fine-tune"),
        ("c_gap", 10, {"step_epochs": 0}, "8 steps of 0 and a fine-tune"),
        ("c_gap", 10, {"steps": 0}, "0 steps of 1 and a fine-tune"),
        ("c_gap", 10, {"steps": -1}, "-1 steps of 1 and a fine-tune"),
        ("c_gap", 100, {"partitions": 11}, "^partitions: 11 .* give 1 to 10"),
        ("c_gap", 10, {"partitions": 0}, "^partitions: 0 .* give 1 to 10"),
        ("p_gap", 10, {"partitions": 0}, "^partitions: 0 .* give 1 to 10"),
        ("p_gap", 10, {"partitions": 11}, "^partitions: 11 .* give 1 to 10"),
        ("c_gap", 100, {"partitions": True}, "partitions"),
        ("c_gap", 100, {"strategy": "cycle"}, "cyclic"),
        ("c_gap", 100, {"partitions": 1, "strategy": "random"}, "random strategy"),
        ("c_gap", 100, {"partitions": 2, "strategy": "random"}, "no choice .* valid: 3 to 10"),
        ("p_gap", 10, {"rounds": 3, "step_epochs": 1, "partitions": 4}, "3 rounds of .* fine-tune"),
        ("p_gap", 10, {"rounds": 0}, "0 rounds of .* fine-tune"),
        ("p_gap", 10, {"step_epochs": 0}, " 0 .* fine-tune"),
        ("prune_from_dense", 10, {"dense_epochs": 10}, "dense_epochs"),
        ("gradual", 10, {"start": 0.9, "stop": 0.5}, "start"),
        ("ac_dc", 3, {}, "are too few for"),
        ("rigl", 10, {"alpha": 1.5}, "alpha"),
        ("rigl", 0, {}, "at least 1"),
        ("static", 10, {"alpha": 0.1}, "unknown option of static"),
        ("riggl", 10, {}, "did you mean 'rigl'"),
    ],
)
def test_impossible_options_are_refused_in_one_line(name, epochs, options, message):
    with pytest.raises(UserError, match=message) as caught:
        plan(name, LAYERS, epochs, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rigl", {"every": 1, "alpha": 1.0, "until": 1.0}),
        ("set", {"every": 1, "alpha": 1e-9, "until": 1e-9}),
        ("gradual", {"every": 1, "start": 0.0, "stop": 1e-9}),
        ("prune_from_dense", {"dense_epochs": 1}),
        ("prune_from_dense", {"dense_epochs": 99}),
        ("c_gap", {"partitions": 10, "steps": 1, "step_epochs": 99}),
        ("c_gap", {"partitions": 10, "strategy": "random"}),
        ("p_gap", {"partitions": 10, "rounds": 1, "step_epochs": 9}),
    ],
)
def test_values_at_the_limits_are_possible(name, options):
    assert plan(name, LAYERS, 100, **options).epochs == 100


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_options_are_finite(value):
    with pytest.raises(UserError, match=r"alpha.*finite"):
        plan("rigl", LAYERS, 100, alpha=value)


def test_options_of_a_method_are_its_keyword_arguments_with_types_and_defaults():
    fields = options_model("c_gap").model_fields
    assert fields["partitions"].default == 4
    assert options_model("c_gap")(patterns=[["a"], ["b"]]).patterns == (("a",), ("b",))


def test_a_plan_is_the_same_whatever_was_drawn_from_other_generators():
    random.seed(1)
    first = plan("c_gap", LAYERS, 99, partition_rule="random", seed=5)
    random.seed(2)
    assert plan("c_gap", LAYERS, 99, partition_rule="random", seed=5) == first

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbench.errors import UserError
from gapbench.methods.method import plan
from gapbench.plan.phases import Layer, Parallel, Phase, Plan, names_of
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.plan.updates.gradual import Gradual

A, B = frozenset({"a"}), frozenset({"b"})


@pytest.mark.parametrize(
    ("step", "sparsity"),
    [
        (10_000, 0),
        (11_000, 0.168267),
        (13_750, 0.520312),
        (17_500, 0.7875),
        (21_250, 0.885938),
        (25_000, 0.9),
    ],
)
def test_reference_zhu_gupta_schedule(step, sparsity):
    cubic = Gradual(start=10_000 / 32_000, stop=25_000 / 32_000)
    assert 0.9 * cubic.progress(step, 32_000) == pytest.approx(sparsity, abs=5.1e-7)


@pytest.mark.parametrize(
    ("step", "fraction"),
    [(0, 0.3), (6_250, 0.25606602), (12_500, 0.15), (18_750, 0.04393398), (25_000, 0)],
)
def test_reference_rigl_cosine(step, fraction):
    cosine = DropGrow("gradient", alpha=0.3, until=25_000 / 32_000)
    assert cosine.fraction(step, 32_000) == pytest.approx(fraction, abs=5e-9)


@given(steps=st.integers(2, 3000), every=st.integers(1, 400))
def test_gradual_pruning_ends_at_exactly_its_target_and_never_goes_back(steps, every):
    cubic = Gradual(every, 0.3125, 0.78125)
    due = [step for step in range(steps) if cubic.due(step, steps)]
    assert due == cubic.dues(steps)
    progress = [cubic.progress(step, steps) for step in due]
    assert due[-1] == int(0.78125 * steps)
    assert progress[-1] == 1
    assert progress == sorted(progress)
    assert all(b - a == every for a, b in itertools.pairwise(due[:-1]))


def test_gradual_pruning_has_not_begun_before_its_start():
    cubic = Gradual(100, 0.25, 0.5)
    assert not cubic.due(0, 1000)
    assert cubic.progress(249, 1000) == 0
    assert cubic.due(250, 1000)
    assert [step for step in range(251, 1000) if cubic.due(step, 1000)] == [350, 450, 500]


def test_drop_and_grow_moves_at_multiples_before_its_end_and_never_at_step_0():
    update = DropGrow("gradient", every=100, until=0.75)
    assert [step for step in range(1000) if update.due(step, 1000)] == list(range(100, 750, 100))
    assert not update.due(750, 1000)
    assert not DropGrow("gradient", every=250, until=0.75).due(750, 1000)  # t < T_end


def test_a_plan_lays_its_parts_out_one_after_the_other():
    a_round = Parallel((Phase(2, A), Phase(3, B)))
    plan = Plan((Phase(4), a_round, Phase(1)), "random")
    places = [(s.start, s.stop, s.part, s.branch, s.branches) for s in plan.segments]
    assert places == [
        (0, 4, 0, None, 1),
        (4, 6, 1, 0, 2),
        (6, 9, 1, 1, 2),
        (9, 10, 2, None, 1),
    ]
    assert plan.epochs == 10
    assert plan.wall_epochs == 4 + 3 + 1


def test_only_what_the_last_phase_grows_without_pruning_stays_dense():
    assert Plan((Phase(1, A), Phase(1))).dense_at_end == frozenset()
    assert Plan((Phase(1), Phase(1, A))).dense_at_end == A
    assert Plan((Phase(1, A, Gradual()),)).dense_at_end == frozenset()


def test_a_plan_knows_the_layers_of_each_prune():
    every = A | B
    assert list(Plan((Phase(1, A), Phase(1, B), Phase(1))).pruned_together(every)) == [B, A, B]
    assert list(Plan((Phase(1, A), Phase(1)), "random").pruned_together(every)) == [A]
    assert list(Plan((Phase(1), Phase(1, A)), "random").pruned_together(every)) == []
    assert list(Plan((Phase(1, every, Gradual()),)).pruned_together(every)) == [every]


@pytest.mark.parametrize("parts", [(Phase(0),), (Parallel((Phase(1), Phase(0, label="grow"))),)])
def test_a_phase_of_no_epochs_is_refused(parts):
    with pytest.raises(UserError, match="has 0 epochs"):
        Plan(parts)


def test_a_layer_knows_its_size_and_layers_their_names():
    layers = (Layer("a", (2, 3, 4)), Layer("b", ()))
    assert [layer.numel for layer in layers] == [24, 1]
    assert names_of(layers) == {"a", "b"}


def test_updates_have_the_values_of_their_papers():
    assert DropGrow("random") == DropGrow("random", 100, 0.75, 0.3, True)
    assert Gradual() == Gradual(100, 10_000 / 32_000, 25_000 / 32_000)


@pytest.mark.parametrize(
    ("method", "options", "roles"),
    [
        ("dense", {}, "gggggggggggg"),
        ("static", {}, "............"),
        ("rigl", {}, "............"),
        ("gradual", {}, "gggggggggggg"),
        ("prune_from_dense", {"dense_epochs": 4}, "ggggtttttttt"),
        ("ac_dc", {"warmup_epochs": 2, "phase_epochs": 2, "fine_tune_epochs": 2}, "gg..gg..ggtt"),
        ("c_gap", {"partitions": 2, "steps": 4, "step_epochs": 2}, "ggggggggtttt"),
        ("p_gap", {"partitions": 2, "rounds": 2, "step_epochs": 2}, "ggggggggtttt"),
    ],
)
def test_a_plan_says_what_it_does_in_each_epoch(method, options, roles):
    """g: layers grow, t: the last phase tunes what they have left."""
    layers = tuple(Layer(f"{n}.weight", (8, 8)) for n in range(4))
    built = plan(method, layers, 12, **options)
    found = "".join({"grow": "g", "tune": "t", "": "."}[built.role(e + 1)] for e in range(12))
    assert found == roles

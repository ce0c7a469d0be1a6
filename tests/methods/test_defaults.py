"""The plan that each method makes without options, written down as an exact value."""

from __future__ import annotations

import pytest

from gapbench.errors import UserError
from gapbench.methods.method import methods, plan
from gapbench.plan.phases import Layer, Parallel, Phase, Plan, Transform
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.plan.updates.gradual import Gradual
from gapbench.plan.updates.regrowing import Regrowing
from gapbench.plan.updates.soft_bound import SoftBound

# contiguous cuts of equal layers are pairs
LAYERS = tuple(Layer(f"l{i}", (4, 4)) for i in range(8))
EVERY = frozenset(layer.name for layer in LAYERS)
GROUPS = tuple(frozenset({f"l{i}", f"l{i + 1}"}) for i in (0, 2, 4, 6))
EPOCHS = 100

# 100 // 33 = 3 epochs a step, 85 // 12 = 7 rounds of 4 steps; 100 // 37 = 2 and 87 // 8 = 10 rounds
PLANS = {
    "fine_tune": Plan((Phase(100, frozenset(), None, True, "recipe", "fine-tune"),), "dense"),
    "small_dense": Plan((Phase(100, EVERY, None, True, "recipe", "dense"),), "dense"),
    "str": Plan(
        (Phase(100, EVERY, None, True, "recipe", "train"),),
        "dense",
        Transform("soft_threshold", -3200.0, None, "emergent"),
    ),
    "dense": Plan((Phase(100, EVERY, None, True, "recipe", "dense"),), "dense"),
    "static": Plan((Phase(100, frozenset(), None, True, "recipe", "sparse"),), "random"),
    "rigl": Plan(
        (
            Phase(
                100,
                frozenset(),
                DropGrow("gradient", 100, 0.75, 0.3, True),
                True,
                "recipe",
                "sparse",
            ),
        ),
        "random",
    ),
    "set": Plan(
        (
            Phase(
                100,
                frozenset(),
                DropGrow("random", 100, 0.75, 0.3, False),
                True,
                "recipe",
                "sparse",
            ),
        ),
        "random",
    ),
    "gradual": Plan(
        (Phase(100, EVERY, Gradual(100, 0.3125, 0.78125), True, "recipe", "gradual"),), "dense"
    ),
    "granet": Plan(
        (Phase(100, EVERY, Regrowing(100, 0.0, 0.75, alpha=0.5), True, "recipe", "gradual"),),
        "dense",
    ),
    "mest": Plan(
        (Phase(100, frozenset(), SoftBound(100, 0.75, 0.3, 0.01), True, "recipe", "sparse"),),
        "random",
    ),
    "prune_from_dense": Plan(
        (
            Phase(50, EVERY, None, True, "recipe", "dense"),
            Phase(50, frozenset(), None, True, "recipe", "fine-tune"),
        ),
        "dense",
    ),
    "ac_dc": Plan(
        (
            Phase(10, EVERY, None, False, "recipe", "dense"),
            *(
                phase
                for length in (5, 5, 5, 5, 5, 5, 10)
                for phase in (
                    Phase(5, frozenset(), None, False, "recipe", "sparse"),
                    Phase(length, EVERY, None, False, "recipe", "dense"),
                )
            ),
            Phase(15, frozenset(), None, False, "recipe", "fine-tune"),
        ),
        "dense",
    ),
    "c_gap": Plan(
        (
            *(Phase(3, GROUPS[q % 4], None, True, "recipe", f"grow {q + 1}/28") for q in range(28)),
            Phase(16, frozenset(), None, True, "recipe", "fine-tune"),
        ),
        "random",
    ),
    "dsd": Plan(
        (
            *(Phase(3, EVERY, None, True, "recipe", f"grow {q + 1}/28") for q in range(28)),
            Phase(16, frozenset(), None, True, "recipe", "fine-tune"),
        ),
        "random",
    ),
    "p_gap": Plan(
        (
            *(
                Parallel(
                    tuple(
                        Phase(2, group, None, True, "recipe", f"round {r + 1}/10")
                        for group in GROUPS
                    )
                )
                for r in range(10)
            ),
            Phase(20, frozenset(), None, True, "recipe", "fine-tune"),
        ),
        "random",
    ),
}


def test_every_method_has_its_plan_here():
    assert PLANS.keys() == set(methods)


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_without_options_is_exactly_this(name):
    assert plan(name, LAYERS, EPOCHS) == PLANS[name]


# epochs of each segment
SHORTEST = {
    "dense": [1],
    "static": [1],
    "fine_tune": [1],
    "small_dense": [1],
    "str": [1],
    "rigl": [1],
    "set": [1],
    "gradual": [1],
    "granet": [1],
    "mest": [1],
    "prune_from_dense": [1, 1],
    "ac_dc": [1, 1, 1, 1],
    "c_gap": [1, 1, 1, 1, 1],
    "dsd": [1, 1],
    "p_gap": [1, 1, 1, 1, 1],
}


@pytest.mark.parametrize("name", PLANS)
def test_the_fewest_epochs_are_exactly_these(name):
    fewest = sum(SHORTEST[name])
    segments = plan(name, LAYERS, fewest).segments
    assert [segment.phase.epochs for segment in segments] == SHORTEST[name]
    if fewest > 1:
        with pytest.raises(UserError, match=rf"{fewest - 1} (machine-)?epochs|0 of 1 epochs"):
            plan(name, LAYERS, fewest - 1)

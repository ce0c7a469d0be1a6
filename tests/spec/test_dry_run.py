from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.spec.ablation import read
from gapbench.spec.dry_run import AFTER_THE_RUN, dry_run
from gapbench.spec.grid import expand

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper():
    """Outlooks of the main ablation's image rows at the paper's scale."""
    entries = expand(read(ROOT / "ablations/main.yaml"), "paper", seeds=(0,))
    return dry_run(entries)


def one(forecasts, **wanted):
    """Return the forecast of these settings among those of the task's own recipe."""
    found = [
        o
        for o in forecasts
        if o.pattern == wanted.get("pattern", "unstructured")
        if all(getattr(o, k, o.options.get(k)) == v for k, v in wanted.items())
        and "own recipe" not in o.label  # RigL's own
    ]
    assert len(found) == 1, [o.label for o in found]
    return found[0]


def test_the_papers_budgets_come_out_of_the_plans(paper):
    epochs = {
        (o.method, o.epochs, o.wall_epochs)
        for o in paper
        if o.method not in ("prune_from_dense", "gradual")
    }
    assert epochs == {
        ("dense", 250, 250),
        ("c_gap", 990, 990),
        ("p_gap", 1110, 390),
        ("rigl", 100, 100),
        ("rigl", 500, 500),
        ("rigl", 1200, 1200),
        ("static", 100, 100),
        ("set", 100, 100),
        ("ac_dc", 100, 100),
        ("ac_dc", 500, 500),
        ("granet", 100, 100),
        ("mest", 100, 100),
        ("str", 100, 100),
        ("small_dense", 100, 100),
    }


def test_c_gap_is_28_steps_of_30_and_a_fine_tune_of_150():
    entries = expand(read(ROOT / "ablations/main.yaml"), "paper", only=["c_gap"], seeds=(0,))
    phases = [segment.phase.epochs for segment in entries[0].trial.plan.segments]
    assert phases == [30] * 28 + [150]


@pytest.mark.parametrize(
    ("method", "distribution", "sparsity", "epochs", "train", "inference"),
    [
        # reference-values.md, "cost, as a fraction of dense"; published factors agree to 0.01
        ("rigl", "erk", 0.8, 100, 0.4165, 0.4138),
        ("rigl", "erk", 0.9, 100, 0.2454, 0.2418),
        ("rigl", "erk", 0.8, 500, 2.083, 0.4138),
        ("rigl", "erk", 0.9, 500, 1.227, 0.2418),
        ("rigl", "uniform", 0.8, 100, 0.23, 0.2241),
        ("rigl", "uniform", 0.9, 100, 0.13, 0.1272),
    ],
)
def test_rigl_costs_what_its_paper_says(
    paper, method, distribution, sparsity, epochs, train, inference
):
    found = one(
        paper,
        method=method,
        distribution=distribution,
        sparsity=sparsity,
        epochs=epochs,
    )
    assert found.train_flops_ratio == pytest.approx(train, abs=0.01)
    assert found.inference_flops_ratio == pytest.approx(inference, abs=0.005)


@pytest.mark.parametrize(("sparsity", "train"), [(0.8, 0.56), (0.9, 0.50)])
def test_gradual_pruning_costs_what_its_paper_says(paper, sparsity, train):
    found = one(paper, method="gradual", sparsity=sparsity, epochs=100)
    assert found.train_flops_ratio == pytest.approx(train, abs=0.01)


def test_flops_under_global_magnitude_are_known_only_after_the_run(paper):
    for forecast in paper:
        unknown = forecast.distribution in ("global_magnitude", "emergent")
        assert (forecast.train_flops_ratio is None) == unknown
        assert (forecast.inference_flops_ratio is None) == unknown
        assert forecast.note == (AFTER_THE_RUN if unknown else None)


def test_both_densities_are_given(paper):
    uniform = one(paper, method="c_gap", distribution="uniform", sparsity=0.9)
    assert uniform.parameters == 25_557_032
    assert uniform.prunable_parameters == 25_502_912 - 9_408  # the first convolution stays dense
    assert uniform.layers == 53
    assert uniform.prunable_density == pytest.approx(0.1, abs=1e-5)
    kept = uniform.prunable_density * uniform.prunable_parameters
    dense = uniform.parameters - uniform.prunable_parameters
    assert uniform.model_density == pytest.approx((dense + kept) / uniform.parameters)
    erk = one(paper, method="rigl", distribution="erk", sparsity=0.8, epochs=100)
    assert round(erk.prunable_density * erk.prunable_parameters) == 5_100_630


def test_coverage_is_told_where_the_plan_decides_it(paper):
    uniform = [
        o
        for o in paper
        if (o.distribution, o.sparsity) in (("uniform", 0.9), ("dense", 0))
        and o.pattern == "unstructured"
    ]
    found = {o.method: o.coverage for o in uniform}
    everything = dict.fromkeys(("dense", "c_gap", "p_gap", "gradual", "prune_from_dense"), 1)
    assert found == {
        **everything,
        "static": pytest.approx(0.1, abs=1e-5),
        "rigl": None,
        "set": None,
        "granet": None,
        "mest": None,
    }
    magnitude = {o.method: o.coverage for o in paper if o.distribution == "global_magnitude"}
    assert magnitude == {"c_gap": 1, "ac_dc": 1, "granet": None}


def test_strategies_and_partitions_are_those_of_the_method(paper):
    found = {o.method: (o.strategy, o.partitions) for o in paper}
    assert found["c_gap"] == ("cyclic", 4)
    assert found["p_gap"] == ("parallel", 4)
    assert found["rigl"] == (None, None)


def test_nothing_is_allocated_for_a_dry_run():
    entry = expand(read(ROOT / "ablations/main.yaml"), "paper", only=["dense"], seeds=(0,))[0]
    assert {p.device.type for p in entry.trial.proxy.model.parameters()} == {"meta"}

from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.analysis.evidence import read_trials
from gapbench.analysis.reproduction import (
    Finding,
    Reproduction,
    Spread,
    find_original,
)

BOUNDS = "the 95 % prediction interval of 3 seeds,"


@pytest.mark.parametrize(
    ("value", "seeds", "within", "line"),
    [
        # mean 86, deviation 1, t(2) = 4.302653: 86 -+ 4.968276
        (81.04, (85.0, 86.0, 87.0), True, f"within {BOUNDS} 81.03 to 90.97"),
        (81.03, (85.0, 86.0, 87.0), False, f"81.03 lies outside {BOUNDS} 81.03 to"),
        (90.98, (85.0, 86.0, 87.0), False, f"90.98 lies outside {BOUNDS}"),
        (86.0, (85.0, 86.0), None, "86.00 cannot be judged: 3 seeds are needed, the row has 2"),
        (86.0, (), None, "the row has 0"),
    ],
)  # fmt: skip
def test_a_result_of_another_kind_of_machine_is_judged_by_the_rows_seeds(
    value, seeds, within, line
):
    spread = Spread("test/accuracy", value, seeds)
    assert spread.within is within
    assert line in spread.line
    different = (Finding("values", 3, ("test/accuracy: 1 there, 2 here",)),)
    assert Reproduction(different, (), (), spread).agrees is (within is True)
    assert not Reproduction(different, (), (), None).agrees
    assert Reproduction((Finding("values", 3, ()),), (), (), spread).agrees


def test_the_seeds_of_a_row_are_those_that_differ_in_nothing_else():
    """By a committed row of six seeds."""
    results = Path(__file__).parent.parent.parent / "results"
    published = read_trials(results / "mini" / "main" / "trials.jsonl", results).runs
    static = [run for run in published if run.trial.method == "static"]
    first = static[0].trial
    alike = [
        run.result["metrics"]["test/accuracy"]
        for run in static
        if (run.trial.sparsity, run.trial.distribution) == (first.sparsity, first.distribution)
        if run.trial.plan.epochs == first.plan.epochs
    ]
    original = find_original(results, first.key)
    assert sorted(original.seeds) == sorted(alike)
    assert len(original.seeds) >= 6 and original.trial.key == first.key

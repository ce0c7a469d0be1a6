from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gapbench.analysis.stats import (
    ALPHA,
    detectable,
    difference,
    holm,
    summary,
    verdict,
)

VALUES = [88.5, 88.1, 87.8, 88.4, 87.9, 88.6]
OTHERS = [87.6, 87.8, 87.5, 87.9, 87.2, 87.7]


def test_interval_is_scipys_t_interval() -> None:
    found = summary(VALUES)
    low, high = scipy_stats.t.interval(
        0.95, len(VALUES) - 1, np.mean(VALUES), scipy_stats.sem(VALUES)
    )
    assert found.n == 6 and found.half_width is not None
    assert found.mean - found.half_width == pytest.approx(low, abs=1e-12)
    assert found.mean + found.half_width == pytest.approx(high, abs=1e-12)
    assert found.sd == pytest.approx(np.std(VALUES, ddof=1))


def test_one_value_has_a_mean_and_nothing_else() -> None:
    found = summary([88.0])
    assert (found.n, found.mean, found.sd, found.half_width) == (1, 88.0, None, None)


def test_no_value_has_no_summary() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summary([])


def test_difference_is_scipys_paired_t_test() -> None:
    mine, theirs = dict(enumerate(VALUES)), dict(enumerate(OTHERS))
    found = difference(mine, theirs)
    assert found is not None
    expected = scipy_stats.ttest_rel(VALUES, OTHERS)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    interval = expected.confidence_interval(0.95)
    assert found.summary.mean - found.summary.half_width == pytest.approx(interval.low)
    gaps = np.subtract(VALUES, OTHERS)
    assert found.effect == pytest.approx(gaps.mean() / gaps.std(ddof=1))


def test_only_seeds_of_both_are_paired() -> None:
    found = difference({0: 1.0, 1: 2.0, 2: 4.0}, {1: 1.0, 2: 1.0, 3: 50.0})
    assert found is not None and found.summary.n == 2 and found.summary.mean == 2.0
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_a_difference_and_no_test() -> None:
    found = difference({0: 2.0}, {0: 1.0})
    assert found is not None and found.summary.mean == 1.0
    assert found.p is None and found.effect is None


def test_equal_differences_are_no_evidence() -> None:
    constant = difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert constant is not None and constant.p is None
    same = difference({0: 2.0, 1: 3.0}, {0: 2.0, 1: 3.0})
    assert same is not None and same.p == 1.0


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04: x4 = .02, x3 = .03, x2 = .06, x1 = .04 raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_difference_can_be_tested_against_another_than_none() -> None:
    values, none = dict(enumerate([-0.3, -0.1, 0.1, -0.2, 0.0])), dict.fromkeys(range(5), 0.0)
    interval = summary(list(values.values()))
    assert interval.half_width is not None
    for expected in (interval.mean - interval.half_width, interval.mean + interval.half_width):
        found = difference(values, none, expected)
        assert found is not None and found.p == pytest.approx(ALPHA, rel=1e-9)
    scipy_p = float(scipy_stats.ttest_1samp(list(values.values()), -0.5).pvalue)
    found = difference(values, none, -0.5)
    assert found is not None and found.p == pytest.approx(scipy_p, rel=1e-12)
    constant = difference({0: 1.0, 1: 1.5}, {0: 1.5, 1: 2.0}, -0.5)
    assert constant is not None and constant.p == 1.0


def test_holm_never_exceeds_one_and_counts_tests_that_were_not_made() -> None:
    assert holm([0.02, None, 0.6]) == [pytest.approx(0.06), None, 1.0]
    assert holm([]) == []


def test_a_test_at_the_detectable_difference_finds_it_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    for n, alpha in ((3, ALPHA), (6, ALPHA / 10)):
        shift = detectable(1.0, n, alpha)
        samples = rng.normal(shift, 1.0, size=(40_000, n))
        p = scipy_stats.ttest_1samp(samples, 0.0, axis=1).pvalue
        assert np.mean(p < alpha) == pytest.approx(0.8, abs=0.01)


def test_detectable_grows_with_spread_and_shrinks_with_seeds() -> None:
    assert detectable(2.0, 6) == pytest.approx(2 * detectable(1.0, 6))
    assert detectable(1.0, 12) < detectable(1.0, 6)
    assert math.isfinite(detectable(1.0, 2, 0.05 / 100))


def test_a_verdict_needs_the_corrected_test() -> None:
    assert verdict(0.5, 0.049) == "better"
    assert verdict(-0.5, 0.049) == "worse"
    assert verdict(-0.5, 0.049, higher_is_better=False) == "better"
    assert verdict(0.5, 0.05) == "no difference shown"
    assert verdict(0.5, None) == "no difference shown"

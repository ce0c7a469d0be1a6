from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gapbench.analysis.stats import summary

VALUES = [88.5, 88.1, 87.8, 88.4, 87.9, 88.6]


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

"""Statistics for a few seeds: t-intervals, paired differences, Holm, what could have been seen.

Bootstrap intervals over seeds cover too little at these sizes (0.71-0.76 at n = 3 and 0.84-0.88 at
n = 5 for a nominal 0.95), and a sign-flip test cannot fall below p = 0.0625 at n = 5: hence t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import optimize
from scipy import stats as distributions

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1) and half-width of the 95 % t-interval of n values.

    `sd` and `half_width` are None for a single value, which says nothing about spread.
    """

    n: int
    mean: float
    sd: float | None
    half_width: float | None


@dataclass(frozen=True)
class Difference:
    """Differences to a baseline, paired by seed.

    Attributes:
        summary: of the differences, over the seeds that both have.
        effect: mean over standard deviation of the differences (Cohen's d_z), or None.
        p: two-sided p-value of the paired t-test, or None where it is undefined.
    """

    summary: Summary
    effect: float | None
    p: float | None


def summary(values: Sequence[float]) -> Summary:
    """Return the summary of values.

    Raises:
        ValueError: if there is none.
    """
    if not values:
        raise ValueError("a summary needs at least one value")
    n = len(values)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, None, None)
    sd = float(np.std(values, ddof=1))
    half_width = float(distributions.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, half_width)


def difference(
    values: Mapping[int, float], baseline: Mapping[int, float], expected: float = 0.0
) -> Difference | None:
    """Return value minus baseline, each by seed, over the seeds of both; None where there is none.

    Where all differences are equal the t statistic has no denominator: p is then 1 where they are
    as expected, and None otherwise, since equal numbers are no evidence of certainty.

    Args:
        values: of one row, by seed.
        baseline: of the other.
        expected: mean difference of the hypothesis that p is about.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    found = summary([values[seed] - baseline[seed] for seed in seeds])
    if found.sd is None:
        return Difference(found, None, None)
    if found.sd <= 1e-12 * max(1.0, abs(found.mean)):  # nothing but rounding tells them apart
        return Difference(found, None, 1.0 if found.mean == expected else None)
    t = (found.mean - expected) / (found.sd / math.sqrt(found.n))
    p = float(2 * distributions.t.sf(abs(t), found.n - 1))
    return Difference(found, found.mean / found.sd, p)


def detectable(sd: float, n: int, alpha: float = ALPHA) -> float:
    """Return the smallest true mean difference that a paired t-test finds with 80 % power.

    Args:
        sd: standard deviation of the paired differences.
        n: number of pairs, at least 2.
        alpha: level of the two-sided test.
    """
    return _detectable_shift(n, alpha) * sd / math.sqrt(n)


@cache  # a table has hundreds of differences, but few counts of seeds
def _detectable_shift(n: int, alpha: float) -> float:
    """Return the noncentrality at which the test with n - 1 degrees of freedom has its power."""
    critical = float(distributions.t.ppf(1 - alpha / 2, n - 1))

    def missing(shift: float) -> float:
        upper = distributions.nct.sf(critical, n - 1, shift)
        lower = distributions.nct.cdf(-critical, n - 1, shift)
        return float(np.nan_to_num(upper) + np.nan_to_num(lower)) - POWER

    high = critical + 1.0
    while missing(high) < 0:
        high *= 1.5
    return float(optimize.brentq(missing, 0.0, high, xtol=1e-9))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p-values.

    A missing test stays missing and is counted: it has not been made yet, and a verdict may not
    depend on how much has run.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[index] = largest
    return adjusted


def verdict(mean: float, p: float | None, higher_is_better: bool = True) -> Verdict:
    """Return the word that the corrected test allows for a difference of `mean`."""
    if p is None or p >= ALPHA or mean == 0:
        return "no difference shown"
    return "better" if (mean > 0) == higher_is_better else "worse"

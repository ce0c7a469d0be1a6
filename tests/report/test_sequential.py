"""The fixed analysis: Welch's test against scipy, four answers, looks, and simulated studies."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gapbench.analysis.looks import ALPHA, LOOKS
from gapbench.analysis.sequential import (
    POWER,
    Welch,
    answer,
    confirmatory,
    needed,
    simulated,
    table,
    welch,
    wrong_in_sequence,
)

STUDIES = 1000


def drawn(seed, mean, sd, n):
    return np.random.default_rng(seed).normal(mean, sd, n)


@pytest.mark.parametrize(("n", "m", "sd"), [(6, 6, 1.0), (12, 20, 3.0), (2, 5, 0.2)])
def test_welchs_test_is_scipys(n, m, sd):
    first, second = drawn(0, 0.3, 1, n), drawn(1, 0, sd, m)
    found, theirs = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
    assert found.p() == pytest.approx(theirs.pvalue)
    shifted = stats.ttest_ind(first - 0.4, second, equal_var=False)
    assert found.p(0.4) == pytest.approx(shifted.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert found.mean - found.half_width(0.05) == pytest.approx(interval.low)
    assert found.freedom == pytest.approx(theirs.df)
    one = stats.ttest_ind(first - 0.4, second, equal_var=False, alternative="greater").pvalue
    assert found.p_above(0.4) == pytest.approx(one)


def test_one_value_shows_no_spread():
    for first, second in (([2.0], [1.0]), ([2.0], [0.5, 1.5]), ([1.5, 2.5], [1.0])):
        found = welch(first, second)
        assert found == Welch(1.0, math.inf, 1.0)
        assert found.p() == 1.0 and found.half_width(0.05) == math.inf
        assert found.p_above(0.9) == 0.5 and found.detectable(0.05) == math.inf


def test_the_interval_by_hand():
    """Variances 1 and 4 of 3 and 5 values: error sqrt(1/3 + 4/5), freedom by Satterthwaite."""
    found = welch([1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 2.5, 4.0])
    parts = (1 / 3, 3.45 / 5)
    assert found.mean == pytest.approx(0.7) and found.error == pytest.approx(1.011599)
    assert found.error == pytest.approx(math.sqrt(sum(parts)))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 4)
    assert found.freedom == pytest.approx(freedom)
    assert found.half_width(0.03) == pytest.approx(stats.t.ppf(0.985, freedom) * found.error)


def test_a_test_at_the_detectable_difference_finds_it_four_times_in_five():
    for n, level in LOOKS:
        error, freedom = 2.0 * math.sqrt(2 / n), 2 * (n - 1)
        shift = Welch(0.7, error, freedom).detectable(level) / error
        critical = stats.t.ppf(1 - level / 2, freedom)
        assert stats.nct.sf(critical, freedom, shift) == pytest.approx(POWER, abs=0.005)


def rows(difference, n=20, sd=0.3, seed=0):
    first, second = drawn(seed, difference, sd, n), drawn(seed + 1, 0, sd, n)
    return dict(enumerate(first)), dict(enumerate(second))


@pytest.mark.parametrize(
    ("difference", "sd", "word", "n"),
    [(2.0, 0.3, "supported", 6), (-2.0, 0.3, "contradicted", 6), (0.0, 0.1, "equivalent", 6),
     (0.3, 1.0, "not resolved", 20)],
)  # fmt: skip
def test_there_are_four_answers(difference, sd, word, n):
    found = answer(*rows(difference, sd=sd), margin=0.3)
    assert (found.word, found.n) == (word, n)
    level = dict(LOOKS)[n]
    assert found.level == level
    flipped = {"supported": "contradicted", "contradicted": "supported"}
    lower = answer(*rows(difference, sd=sd), margin=0.3, higher_is_better=False)
    assert lower.word == flipped.get(word, word)


def test_a_claim_of_being_as_good_is_supported_by_a_difference_within_the_margin():
    assert answer(*rows(-0.1, sd=0.1), margin=0.5, as_good=True).word == "supported"
    assert answer(*rows(-1.0, sd=0.1), margin=0.5, as_good=True).word == "contradicted"


def test_a_difference_may_be_found_and_lie_within_the_margin():
    assert answer(*rows(0.2, sd=0.05), margin=0.5).word == "supported"
    assert answer(*rows(-0.2, sd=0.05), margin=0.5).word == "contradicted"


@pytest.mark.parametrize(("lost", "words"), [
    ("better", ("not resolved", "contradicted")), ("than", ("supported", "not resolved")),
    ("both", ("not resolved", "not resolved")),
])  # fmt: skip
def test_no_row_of_which_a_seed_has_diverged_is_better_for_the_rest(lost, words):
    for difference, word in zip((3.0, -3.0), words, strict=True):
        first, second = rows(difference)
        if lost != "than":
            first[2] = math.nan
        if lost != "better":
            second[4] = math.inf
        found = answer(first, second, margin=0.3)
        assert found.word == word
        assert found.n == (20 if word == "not resolved" else 6)
        assert found.difference.mean == pytest.approx(difference, abs=0.3)


def test_a_seed_that_diverges_behind_the_look_that_answers_changes_nothing():
    first, second = rows(3.0)
    assert answer(first | {6: math.nan}, second, margin=0.3).word == "supported"
    assert answer(first | {5: math.nan}, second, margin=0.3).word == "not resolved"


def test_a_row_without_a_finite_seed_is_looked_at_and_not_resolved():
    found = answer(dict.fromkeys(range(6), math.nan), rows(0.0)[1], margin=0.3)
    assert (found.word, found.difference, found.n) == ("not resolved", None, 6)


@pytest.mark.parametrize(("seeds", "look"), [(2, 0), (5, 0), (6, 6), (11, 6), (12, 12), (19, 12)])
def test_between_looks_the_answer_stays(seeds, look):
    first, second = rows(0.15, sd=0.6)
    some = ({k: v for k, v in row.items() if k < seeds} for row in (first, second))
    assert answer(*some, margin=0.3).n == look
    # one row ahead of the other changes nothing
    assert answer(first, {k: v for k, v in second.items() if k < seeds}, margin=0.3).n == look


def test_a_later_look_does_not_undo_an_earlier_one():
    first, second = rows(3.0)
    spoilt = {k: v if k < 6 else v - 100 for k, v in first.items()}
    assert answer(spoilt, second, margin=0.3).word == "supported"


def test_equal_numbers_are_no_evidence():
    same = dict.fromkeys(range(6), 80.0)
    assert answer(same, same, margin=0.3).word == "not resolved"


def test_the_looks_spend_the_level():
    assert sum(level for _, level in LOOKS) == pytest.approx(ALPHA)
    assert [n for n, _ in LOOKS] == [6, 12, 20]


def test_only_claims_behind_supported_ones_confirm():
    assert confirmatory([True, True, False, True, False]) == [True, True, True, False, False]
    assert confirmatory([False, True]) == [True, False]
    assert confirmatory([]) == []


@pytest.mark.parametrize("sd", [0.2, 0.5])
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_simulated_claims_without_a_difference_err_within_the_level(sd, ratio):
    rates, _ = simulated(0.0, sd, 0.3, STUDIES, ratio=ratio, seed=1)
    slack = 3 * math.sqrt(ALPHA / STUDIES)
    assert rates["supported"] + rates["contradicted"] <= ALPHA + slack
    # a difference as large as the margin is called equivalent as seldom
    rates, _ = simulated(0.3, sd, 0.3, STUDIES, ratio=ratio, seed=2)
    assert rates["equivalent"] <= ALPHA + slack


def test_simulated_sequences_of_claims_err_within_the_level_in_all():
    share = wrong_in_sequence(6, 0.35, 0.3, STUDIES, seed=3)
    assert share <= ALPHA + 3 * math.sqrt(ALPHA / STUDIES)


def test_the_page_has_the_rates_of_ten_thousand_studies():
    """Which take a minute: here a thousand of them, and chance."""
    page = (Path(__file__).parents[2] / "docs/analysis.md").read_text()
    told = page.split("<!-- sequential -->")[1].split("<!-- /sequential -->")[0]
    shares = re.compile(r"([\d.]+) %")
    here = table(STUDIES).splitlines()
    there = told.strip().splitlines()[: len(here)]
    assert here[:2] == there[:2] and len(here) == 7
    for mine, theirs in zip(here[2:], there[2:], strict=True):
        pairs = zip(
            map(float, shares.findall(mine)), map(float, shares.findall(theirs)), strict=True
        )
        for one, other in pairs:
            assert abs(one - other) <= 4 * math.sqrt(max(other * (100 - other), 25) / STUDIES), mine
    (share,) = re.findall(r"([\d.]+) % of studies answer one wrongly", told)
    assert float(share) / 100 <= ALPHA


@pytest.mark.parametrize(("true", "least"), [(0.5, 0.95), (0.35, 0.75)])
def test_power_is_what_the_page_says(true, least):
    shares, seeds = simulated(true, 0.35, 0.3, STUDIES, seed=4)
    assert shares["supported"] >= least
    assert 6 <= seeds <= 20


def test_the_seeds_that_an_open_answer_asks_for_would_do():
    found = welch(*(list(row.values()) for row in rows(0.2, n=12, sd=0.5)))
    n = needed(found, 12, margin=0.05)
    sd = found.error * math.sqrt(6)
    shift = abs(found.mean) / sd * math.sqrt(n / 2)
    critical = stats.t.ppf(1 - LOOKS[-1][1] / 2, 2 * (n - 1))
    assert stats.nct.sf(critical, 2 * (n - 1), shift) == pytest.approx(0.8, abs=0.02)
    assert needed(found, 12, margin=5.0) == 20  # equivalence is near, and the next look is that


@pytest.mark.parametrize(("mean", "margin", "as_good", "seeds"), [
    # beyond the last look z(.985) = 2.1701, z(.97) = 1.8808, z(.8) = .8416, z(.9) = 1.2816:
    # 2 (3.0117 / d)^2 + 1.1773, or by equivalence 2 (3.1624 / d)^2 + .8844
    (1.0, 0.3, False, 20), (-1.0, 0.3, False, 20),  # 19.3
    (0.2, 0.3, False, 455),  # 454.7 by the difference, 2001 by equivalence
    (0.05, 0.3, False, 321),  # 7257 by the difference, 320.9 by equivalence
    (0.2, 0.5, True, 39),  # 38.2: .7 above the bound
    (-0.8, 0.5, True, 203),  # 202.7: .3 below the bound
    (0.0, 0.0, False, 1000), (3.0, 0.3, False, 12), (1.3, 0.3, False, 20),  # the next looks
])  # fmt: skip
def test_the_seeds_that_would_resolve_it_by_hand(mean, margin, as_good, seeds):
    found = Welch(mean, math.sqrt(2 / 6), 10.0)  # of six seeds of standard deviation 1
    assert needed(found, 6, margin, as_good) == seeds

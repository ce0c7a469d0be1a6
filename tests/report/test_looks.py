"""Claims at the planned looks: the words, and seeds that have diverged or learned nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gapbench.report.answers import differences_words
from tests.report.folders import around
from tests.report.test_answers import answer, results

NAN = math.nan
CLAIM = {"better": {"method": "c_gap"}, "than": {"method": "rigl"}}
OTHER = {"better": CLAIM["than"], "than": CLAIM["better"]}


def told(
    folder: Path, gap: list[float], rigl: list[float], margin: float | None = None
) -> tuple[str, str]:
    """Return what the seeds of two rows say to "C-GaP is better": the word, and the numbers."""
    found = answer(results(folder, ("c_gap", {}, gap), ("rigl", {}, rigl)), **CLAIM, margin=margin)
    words = differences_words(found)
    assert words.startswith("C-GaP against RigL: ")
    return found.verdict, words.removeprefix("C-GaP against RigL: ")


@pytest.mark.parametrize(("seeds", "width", "n"), [
    # variances .012 of five, .012 of six, .0105 of twenty: t(8) sqrt(.012 / 5 + .012 / 5) = 2.306
    # x .0693, t(8.66) x .0663 = 2.276 x .0663, t(5.77) x .0541 = 2.470 x .0541
    ((5, 5), "0.16", "5"), ((6, 5), "0.15", "6, 5"), ((5, 20), "0.13", "5, 20"),
])  # fmt: skip
def test_before_both_rows_have_six_seeds_nothing_is_answered(
    tmp_path: Path, seeds: tuple[int, int], width: str, n: str
) -> None:
    gap, rigl = (around(mean, 0.1, 20)[:count] for mean, count in zip((90, 80), seeds, strict=True))
    word, words = told(tmp_path, gap, rigl)
    assert word == "not resolved"
    assert words.endswith(f" ± {width} points (n = {n}, first look at 6 seeds)")


@pytest.mark.parametrize(("better", "off", "seeds", "word", "look"), [
    (10.0, 0.1, 6, "supported", 6), (-10.0, 0.1, 6, "contradicted", 6),
    (0.0, 0.1, 6, "equivalent within 0.3", 6),  # .3 > 3.169 x .0632
    (0.7, 0.5, 6, "not resolved", 6),  # .7 < 3.581 x .3162
    (0.7, 0.5, 11, "not resolved", 6),
    (0.7, 0.5, 12, "supported", 12), (-0.7, 0.5, 12, "contradicted", 12),  # 2.641 x .2132
    (0.0, 0.25, 12, "equivalent within 0.3", 12),
    (0.4, 0.5, 19, "not resolved", 12),
    (0.4, 0.5, 20, "supported", 20), (-0.4, 0.5, 20, "contradicted", 20),  # 2.253 x .1622
    (0.0, 0.4, 20, "equivalent within 0.3", 20),
    (0.2, 0.5, 20, "not resolved", 20),
])  # fmt: skip
def test_each_look_has_its_words(
    tmp_path: Path, better: float, off: float, seeds: int, word: str, look: int
) -> None:
    rows = [("c_gap", {}, around(80 + better, off, seeds)), ("rigl", {}, around(80, off, seeds))]
    found = answer(results(tmp_path, *rows), **CLAIM)
    assert (found.verdict, found.comparisons[0].answer.n) == (word, look)
    assert ("seeds needed" in differences_words(found)) == (word == "not resolved")


@pytest.mark.parametrize(("better", "off", "n", "words"), [
    # sd .5 sqrt(n / (n - 1)) and error sd sqrt(2 / n); the half-width is at .05,
    # detectable (t(look) (1 - 1 / 4v) + z(.8) sqrt(1 + t(look)^2 / 2v)) x error, with v = 2 n - 2
    (0.7, 0.5, 6, "+0.70 ± 0.70 points (n = 6, detectable 1.45, about 20 seeds needed)"),
    (0.2, 0.5, 20,
     "+0.20 ± 0.33 points (n = 20, detectable 0.50, about 121 seeds needed)"),
    (0.7, 0.5, 12, "+0.70 ± 0.44 points (n = 12, detectable 0.75)"),
])  # fmt: skip
def test_numbers_stand_beside_the_word(
    tmp_path: Path, better: float, off: float, n: int, words: str
) -> None:
    assert told(tmp_path, around(80 + better, off, n), around(80, off, n))[1] == words


def test_what_a_look_has_answered_stays_and_the_difference_is_of_all_seeds(tmp_path: Path) -> None:
    gap = around(82, 0.1, 6) + around(78, 0.1, 14)
    word, words = told(tmp_path, gap, around(80, 0.1, 20))
    assert word == "supported"
    assert words.startswith("-0.80 ± 0.88 points (n = 20, ")


# -- as good as ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("better", "off", "n", "word"), [
    (-0.3, 0.05, 6, "supported"),  # .2 above the bound, error .0316
    (-0.7, 0.05, 6, "contradicted"), (-0.5, 0.05, 20, "not resolved"),
    (-0.45, 0.2, 6, "not resolved"), (3.0, 0.2, 6, "supported"), (-0.3, 0.05, 5, "not resolved"),
])  # fmt: skip
def test_as_good_is_not_worse_by_more_than_the_margin(
    tmp_path: Path, better: float, off: float, n: int, word: str
) -> None:
    found, words = told(tmp_path, around(80 + better, off, n), around(80, off, n), margin=0.5)
    assert found == word
    assert f"(n = {n}, margin 0.5" in words and "detectable" not in words


def test_the_seeds_that_would_resolve_a_margin_count_from_its_bound(tmp_path: Path) -> None:
    """.35 above the bound, sd .5477: 2 (3.0117 / .639)^2 + 1.1773 = 45.6."""
    gap, rigl = around(79.85, 0.5, 6), around(80, 0.5, 6)
    assert told(tmp_path / "margin", gap, rigl, margin=0.5)[1] == (
        "-0.15 ± 0.70 points (n = 6, margin 0.5, about 46 seeds needed)"
    )
    better = told(tmp_path / "better", gap, rigl)[1]  # .15 from nothing, .15 from the margin of .3
    assert better.endswith("detectable 1.45, about 244 seeds needed)")


def test_no_margin_is_told_that_was_not_tested(tmp_path: Path) -> None:
    """Error .15: two one-sided tests at .005 place it within .475, and not within .3."""
    gap, rigl = around(80, 0.2372, 6), around(80, 0.2372, 6)
    assert told(tmp_path, gap, rigl, margin=0.5)[0] == "not resolved"


# -- diverged and collapsed ------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [NAN, math.inf, 14.99])
def test_a_seed_that_diverged_or_learned_nothing_forbids_the_word_in_favour_of_its_row(
    tmp_path: Path, lost: float
) -> None:
    good, bad = around(90, 0.1, 6), around(70, 0.1, 6)
    told_of = {
        "the better": results(tmp_path / "1", ("c_gap", {}, [*good[:5], lost]), ("rigl", {}, bad)),
        "the worse": results(tmp_path / "2", ("c_gap", {}, good), ("rigl", {}, [*bad[:5], lost])),
    }
    words = {
        (row, claim["better"]["method"]): answer(found, **claim).verdict
        for row, found in told_of.items()
        for claim in (CLAIM, OTHER)
    }
    assert words == {
        ("the better", "c_gap"): "not resolved", ("the better", "rigl"): "not resolved",
        ("the worse", "c_gap"): "supported", ("the worse", "rigl"): "contradicted",
    }  # fmt: skip
    shown = differences_words(answer(told_of["the better"], **CLAIM))
    assert shown.startswith("C-GaP against RigL: +19.98 ± 0.15 points (n = 5, 6, ")
    assert shown.endswith(", 1 diverged)")
    # of whom a seed has diverged is as good as none, too
    assert answer(told_of["the better"], **CLAIM, margin=0.5).verdict == "not resolved"
    assert answer(told_of["the worse"], **CLAIM, margin=0.5).verdict == "supported"


def test_no_seeds_would_resolve_what_a_diverged_one_forbids(tmp_path: Path) -> None:
    gap, rigl = [*around(90, 0.1, 5), NAN], around(70, 0.1, 6)
    word, words = told(tmp_path, gap, rigl)
    assert word == "not resolved" and "seeds needed" not in words


def test_one_and_a_half_times_chance_is_no_collapse(tmp_path: Path) -> None:
    gap = [15.0, 15.5, 16.0, 15.2, 15.4, 15.1]
    word, words = told(tmp_path, gap, [80.0, 80.2, 80.1, 79.9, 80.3, 80.0])
    assert word == "contradicted" and "diverged" not in words


def test_a_row_all_of_whose_seeds_diverged_has_run(tmp_path: Path) -> None:
    for folder, lost in (("nan", [NAN] * 6), ("collapsed", [10.0] * 6), ("one", [NAN])):
        found = told(tmp_path / folder, lost, around(80, 0.1, 6))
        assert found == ("diverged", f"{len(lost)} diverged")
    assert told(tmp_path / "both", [NAN, 10.0], [NAN])[1] == "3 diverged"


def test_a_claim_counts_each_word_of_its_comparisons(tmp_path: Path) -> None:
    claim = {"better": {"method": ["c_gap", "rigl", "set", "mest"]}, "than": {"method": "dense"}}
    found = results(
        tmp_path,
        ("dense", {}, around(80, 0.1, 6)),
        ("c_gap", {}, around(82, 0.1, 6)),
        ("c_gap", {"distribution": "erk"}, around(81, 0.1, 6)),
        ("rigl", {}, around(75, 0.1, 6)),
        ("set", {}, [NAN] * 6),
        ("static", {}, around(90, 0.1, 6)),
        ("mest", {}, []),
    )
    assert answer(found, **claim).verdict == (
        "supported in 2 of 4 comparisons, contradicted in 1, diverged in 1; 1 not run"
    )

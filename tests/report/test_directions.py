"""Each statistic in both directions of better: the same numbers, once of accuracy, once of loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import ttest_ind

from gapbench.analysis.cells import Results, results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.comparisons import of_claim, to_baseline
from gapbench.analysis.evaluation import Answer
from gapbench.report.answers import differences_words
from gapbench.spec.schema import Claim
from tests.report.folders import around, entry_of, spec_of, trial_of, write_result

HIGH, LOW = [90.0, 90.2, 90.1, 90.3, 90.0, 90.1], [80.0, 80.1, 80.3, 80.2, 80.1, 80.0]
DIRECTIONS = {"test/accuracy": True, "test/loss": False}
ASKED = {"better": {"method": "c_gap"}, "than": {"method": "rigl"}}


def results(folder: Path, value: str, gap: list[float], rigl: list[float]) -> Results:
    """Return two rows whose metric `value` has these values, seed by seed."""
    entries = []
    for method, values in (("c_gap", gap), ("rigl", rigl)):
        for seed, number in enumerate(values):
            trial = trial_of(method, seed=seed)
            entries.append(entry_of(trial))
            write_result(folder, trial, 50.0, {value: number})
    spec = spec_of(rows=["label"], baseline={"method": "rigl"}, value=value)
    (found,) = results_of(runs_frame(entries, scan(folder)), spec)
    return found


def answer(found: Results, **claim: object) -> str:
    whole = Claim.model_validate({"asks": "Is it?", **ASKED, **claim})
    return Answer(whole, found, tuple(of_claim(found, whole))).verdict


@pytest.mark.parametrize(("value", "higher"), DIRECTIONS.items())
def test_the_verdict_follows_the_metrics_direction(tmp_path, value, higher):
    up, down = (
        results(tmp_path / "up", value, HIGH, LOW),
        results(tmp_path / "down", value, LOW, HIGH),
    )
    words = ["supported", "contradicted"] if higher else ["contradicted", "supported"]
    for found, word, sign in ((up, words[0], 1), (down, words[1], -1)):
        assert found.metric.higher_is_better is higher
        (compared,) = to_baseline(found, {"method": "rigl"})
        assert compared.answer.word == word
        # told as measured, and answered as what is better
        assert compared.difference.mean == pytest.approx(sign * 10.0)
        assert compared.answer.difference.mean == pytest.approx(
            10.0 if higher == (sign > 0) else -10.0
        )


@pytest.mark.parametrize(("value", "higher"), DIRECTIONS.items())
def test_a_claim_is_supported_by_what_is_better_and_contradicted_by_what_is_worse(
    tmp_path, value, higher
):
    words = ["supported", "contradicted"] if higher else ["contradicted", "supported"]
    assert answer(results(tmp_path / "up", value, HIGH, LOW)) == words[0]
    assert answer(results(tmp_path / "down", value, LOW, HIGH)) == words[1]


@pytest.mark.parametrize(("value", "higher"), DIRECTIONS.items())
def test_a_margin_allows_to_be_worse_and_not_to_be_anything(tmp_path, value, higher):
    near = [number + (-0.3 if higher else 0.3) for number in HIGH]
    found = results(tmp_path, value, near, HIGH)  # error .0667
    assert answer(found) == "contradicted"
    assert answer(found, margin=0.6) == "supported"
    assert answer(found, margin=0.3) == "not resolved"
    assert answer(found, margin=0.05) == "contradicted"
    (compared,) = of_claim(found, Claim.model_validate({"asks": "?", **ASKED, "margin": 0.6}))
    bound = 0.6 if higher else -0.6
    shifted = [number + bound for number in near]
    assert compared.p == pytest.approx(ttest_ind(shifted, HIGH, equal_var=False).pvalue)
    assert compared.detectable is None


@pytest.mark.parametrize(("value", "higher"), DIRECTIONS.items())
def test_what_would_resolve_it_is_counted_towards_the_better(tmp_path, value, higher):
    """sd .5477: .786 is seen at 12, so .7 waits for 20; 1.0 above the bound of -.3 does not."""
    sign = 1 if higher else -1
    found = results(tmp_path, value, around(80 + 0.7 * sign, 0.5, 6), around(80, 0.5, 6))
    (better,) = of_claim(found, Claim.model_validate({"asks": "?", **ASKED}))
    (as_good,) = of_claim(found, Claim.model_validate({"asks": "?", **ASKED, "margin": 0.3}))
    assert (better.answer.word, better.needed) == ("not resolved", 20)
    assert (as_good.answer.word, as_good.needed) == ("not resolved", 12)
    assert better.detectable == pytest.approx(4.5701 * 0.31623, abs=1e-3)


@pytest.mark.parametrize(("value", "higher"), DIRECTIONS.items())
def test_of_many_differences_the_one_in_favour_comes_first(tmp_path, value, higher):
    entries = []
    for epochs in (60, 61, 62, 63, 64):
        for method in ("c_gap", "rigl"):
            for seed in range(2):
                trial = trial_of(method, seed=seed, epochs=epochs)
                entries.append(entry_of(trial))
                moved = (epochs - 62) * (method == "c_gap") + 0.1 * seed
                write_result(tmp_path, trial, 50.0, {value: 70 + moved})
    (found,) = results_of(
        runs_frame(entries, scan(tmp_path)), spec_of(rows=["label", "epochs"], value=value)
    )
    claim = Claim.model_validate({"asks": "?", **ASKED, "equal": "epochs"})
    words = differences_words(Answer(claim, found, tuple(of_claim(found, claim))))
    most, _, least = words.partition("least in favour")
    assert ("+2.0" in most, "-2.0" in least) == (higher, higher)
    assert ("-2.0" in most, "+2.0" in least) == (not higher, not higher)

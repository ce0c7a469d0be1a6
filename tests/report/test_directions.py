"""Each statistic in both directions of better: the same numbers, once of accuracy, once of loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapbench.analysis.cells import Results, results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.comparisons import of_claim, to_baseline
from gapbench.analysis.evaluation import Answer
from gapbench.report.answers import differences_words
from gapbench.spec.schema import Claim
from tests.report.folders import entry_of, spec_of, trial_of, write_run

HIGH, LOW = [90.0, 90.2, 90.1, 90.3], [80.0, 80.1, 80.3, 80.2]
DIRECTIONS = {"test/accuracy": True, "test/loss": False}
ASKED = {"better": {"method": "c_gap"}, "than": {"method": "rigl"}}


def results(folder: Path, value: str, gap: list[float], rigl: list[float]) -> Results:
    """Return two rows whose metric `value` has these values, seed by seed."""
    entries = []
    for method, values in (("c_gap", gap), ("rigl", rigl)):
        for seed, number in enumerate(values):
            trial = trial_of(method, seed=seed)
            entries.append(entry_of(trial))
            path = write_run(folder, trial, 50.0) / "result.json"
            result = json.loads(path.read_text())
            result["metrics"][value] = number
            path.write_text(json.dumps(result))
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
    words = ["better", "worse"] if higher else ["worse", "better"]
    for found, word, sign in ((up, words[0], 1), (down, words[1], -1)):
        assert found.metric.higher_is_better is higher
        (compared,) = to_baseline(found, {"method": "rigl"})
        assert compared.verdict == word
        assert compared.difference.summary.mean == pytest.approx(sign * 10.0)


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
    near[0] += 0.02  # equal differences would be no evidence
    found = results(tmp_path, value, near, HIGH)
    assert answer(found) == "contradicted"
    assert answer(found, margin=0.6) == "supported"
    assert answer(found, margin=0.2) == "contradicted"
    (compared,) = of_claim(found, Claim.model_validate({"asks": "?", **ASKED, "margin": 0.6}))
    assert compared.verdict == "better"


@pytest.mark.parametrize(("value", "higher"), DIRECTIONS.items())
def test_of_many_differences_the_one_in_favour_comes_first(tmp_path, value, higher):
    entries = []
    for epochs in (60, 61, 62, 63, 64):
        for method in ("c_gap", "rigl"):
            for seed in range(2):
                trial = trial_of(method, seed=seed, epochs=epochs)
                entries.append(entry_of(trial))
                path = write_run(tmp_path, trial, 50.0) / "result.json"
                result = json.loads(path.read_text())
                moved = (epochs - 62) * (method == "c_gap") + 0.1 * seed
                result["metrics"][value] = 70 + moved
                path.write_text(json.dumps(result))
    (found,) = results_of(
        runs_frame(entries, scan(tmp_path)), spec_of(rows=["label", "epochs"], value=value)
    )
    claim = Claim.model_validate({"asks": "?", **ASKED, "equal": "epochs"})
    words = differences_words(Answer(claim, found, tuple(of_claim(found, claim))))
    most, _, least = words.partition("the least")
    assert ("+2.0" in most, "-2.0" in least) == (higher, higher)
    assert ("-2.0" in most, "+2.0" in least) == (not higher, not higher)

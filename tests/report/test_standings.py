"""The fixed sequence of claims: which of them confirm, and where; all others are exploratory."""

from __future__ import annotations

from pathlib import Path

from gapbench.analysis.cells import Results
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evaluation import Answer, confirming, evaluate
from gapbench.report.answers import answer_grid, standings
from tests.report.folders import around, entry_of, spec_of, trial_of, write_result
from tests.report.test_answers import answer, results

MEANS = {"c_gap": 90.0, "set": 85.0, "rigl": 80.0, "static": 80.0}


def claim(found: Results, better: str, than: str, sequence: int | None = None) -> Answer:
    sides = {"better": {"method": better}, "than": {"method": than}}
    return answer(found, **sides, sequence=sequence)


def rows(folder: Path, **more: float) -> Results:
    """Return rows of six seeds at 90 % sparsity, "static" as good as "rigl"."""
    means = {**MEANS, **more}
    return results(folder, *((name, {}, around(mean, 0.1, 6)) for name, mean in means.items()))


def test_claims_confirm_in_their_order_up_to_the_first_that_is_not_supported(
    tmp_path: Path,
) -> None:
    found = rows(tmp_path)
    answers = [
        claim(found, "c_gap", "static", 4), claim(found, "rigl", "static", 3),
        claim(found, "c_gap", "rigl", 1), claim(found, "set", "static"),
        claim(found, "c_gap", "set", 2), claim(found, "set", "rigl", 5),
    ]  # fmt: skip
    assert [a.verdict for a in answers] == [
        "supported", "equivalent within 0.3", *["supported"] * 4,
    ]  # fmt: skip
    assert confirming(answers) == [(), (0.9,), (0.9,), (), (0.9,), ()]
    words = ["exploratory", "confirmatory", "confirmatory", "exploratory", "confirmatory"]
    assert standings(answers) == [*words, "exploratory"]


def test_a_contradicted_claim_confirms_and_closes_the_sequence(tmp_path: Path) -> None:
    found = rows(tmp_path)
    answers = [claim(found, "set", "c_gap", 1), claim(found, "c_gap", "set", 2)]
    assert [a.verdict for a in answers] == ["contradicted", "supported"]
    assert standings(answers) == ["confirmatory", "exploratory"]


def test_a_claim_without_a_place_is_exploratory_and_closes_nothing(tmp_path: Path) -> None:
    found = rows(tmp_path)
    answers = [claim(found, "set", "c_gap"), claim(found, "c_gap", "set", 1)]
    assert standings(answers) == ["exploratory", "confirmatory"]
    assert standings([]) == []


def test_each_sparsity_has_a_sequence_of_its_own(tmp_path: Path) -> None:
    means = {0.8: {"c_gap": 90, "rigl": 80, "set": 70}, 0.9: {"c_gap": 80, "rigl": 80, "set": 70}}
    found = results(
        tmp_path,
        *(
            (method, {"sparsity": sparsity}, around(mean, 0.1, 6))
            for sparsity, own in means.items()
            for method, mean in own.items()
        ),
    )
    answers = [claim(found, "c_gap", "rigl", 1), claim(found, "c_gap", "set", 2)]
    assert [a.verdict for a in answers] == [
        "supported at 0.8; equivalent within 0.3 at 0.9", "supported",
    ]  # fmt: skip
    assert confirming(answers) == [(0.8, 0.9), (0.8,)]
    assert standings(answers) == [
        "confirmatory", "confirmatory at sparsity 0.8, else exploratory",
    ]  # fmt: skip


def test_each_task_has_a_sequence_of_its_own(tmp_path: Path) -> None:
    entries = []
    means = {"fashion_mnist": (90, 80, 70), "digits": (80, 80, 70)}
    for task, own in means.items():
        for method, mean in zip(("c_gap", "rigl", "set"), own, strict=True):
            for seed, value in enumerate(around(mean, 0.1, 6)):
                trial = trial_of(method, seed=seed, task=task)
                entries.append(entry_of(trial))
                write_result(tmp_path, trial, value)
    claims = [
        {"asks": f"{than}?", "better": {"method": "c_gap"}, "than": {"method": than},
         "sequence": number} for number, than in ((1, "rigl"), (2, "set"))
    ]  # fmt: skip
    spec = spec_of(rows=["label"], claims=claims)
    answers = evaluate(runs_frame(entries, scan(tmp_path)), spec).answers
    found = [(a.claim.asks, a.results.task) for a in answers]
    assert dict(zip(found, standings(answers), strict=True)) == {
        ("rigl?", "fashion_mnist"): "confirmatory", ("set?", "fashion_mnist"): "confirmatory",
        ("rigl?", "digits"): "confirmatory", ("set?", "digits"): "exploratory",
    }  # fmt: skip


def test_a_claim_is_supported_where_all_of_its_comparisons_are(tmp_path: Path) -> None:
    found = rows(tmp_path)
    some = answer(
        found, better={"method": "c_gap"}, than={"method": ["rigl", "static"]}, sequence=1
    )
    assert len(some.comparisons) == 2
    assert standings([some, claim(found, "c_gap", "set", 2)]) == ["confirmatory", "confirmatory"]
    lower = rows(tmp_path / "lower", static=95.0)
    part = answer(
        lower, better={"method": "c_gap"}, than={"method": ["rigl", "static"]}, sequence=1
    )
    assert part.verdict == "supported in 1 of 2 comparisons, contradicted in 1"
    assert standings([part, claim(lower, "c_gap", "set", 2)]) == ["confirmatory", "exploratory"]


def test_a_claim_that_waits_closes_the_sequence(tmp_path: Path) -> None:
    waiting = {"five seeds": around(70, 0.1, 5), "none": []}
    for name, values in waiting.items():
        given = [("c_gap", around(90, 0.1, 6)), ("rigl", around(80, 0.1, 6)), ("set", values)]
        found = results(tmp_path / name, *((method, {}, own) for method, own in given))
        answers = [claim(found, "c_gap", "set", 1), claim(found, "c_gap", "rigl", 2)]
        assert answers[1].verdict == "supported"
        assert standings(answers)[1] == "exploratory", name


def test_a_claim_whose_predecessors_are_not_answered_here_is_exploratory(tmp_path: Path) -> None:
    found = rows(tmp_path)
    first, second = claim(found, "c_gap", "rigl", 1), claim(found, "c_gap", "set", 2)
    assert standings([first, second]) == ["confirmatory", "confirmatory"]
    assert standings([second]) == ["exploratory"]  # as where its ablation alone is reported


def test_the_standing_is_beside_the_answer_and_what_is_known_comes_first(tmp_path: Path) -> None:
    found = results(tmp_path, ("c_gap", {}, around(90, 0.1, 6)), ("rigl", {}, around(80, 0.1, 6)),
                    ("set", {}, []))  # fmt: skip
    answers = [claim(found, "c_gap", "set"), claim(found, "c_gap", "rigl", 1)]
    grid = answer_grid(answers, "What?")
    assert grid.head == ("question", "answer", "standing", "differences")
    assert [[cell.text for cell in line] for line in grid.body] == [
        ["Is it? (partitions, fashion_mnist)", "supported", "confirmatory",
         "C-GaP against RigL: +10.00 ± 0.14 points (n = 6, detectable 0.29)"],
        ["Is it? (partitions, fashion_mnist)", "not run", "–", "–"],
    ]  # fmt: skip
    words = "6 seeds at level 0.005, 12 seeds at level 0.015, 20 seeds at level 0.03"
    assert words in grid.notes[0]


def test_a_claim_of_which_a_row_is_missing_closes_the_sequence(tmp_path: Path) -> None:
    found = rows(tmp_path)
    both = {"better": {"method": "c_gap"}, "than": {"method": ["set", "mest"]}}
    first = answer(found, **both, sequence=1)
    assert first.verdict == "supported"  # of what there is
    assert standings([first, claim(found, "c_gap", "set", 2)]) == ["confirmatory", "exploratory"]

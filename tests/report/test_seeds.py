"""Which seeds an answer takes, and which of them a look still asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evaluation import evaluate
from gapbench.analysis.evidence import TRIALS
from gapbench.analysis.seeds import all_looks, next_look, with_others
from gapbench.errors import UserError
from gapbench.spec.ablation import read
from gapbench.spec.grid import Entry
from gapbench.spec.schema import Claim
from gapbench.study import Study
from tests.report.folders import around, write_run
from tests.runs import ABLATIONS

FILE = ABLATIONS / "partitions.yaml"
ROWS = ("c_gap", "partitions=1,4")


def study(results: Path, seeds: int = 20) -> Study:
    return Study.read(FILE, scale="smoke", only=ROWS, seeds=seeds, results=results)


def write(results: Path, entries: tuple[Entry, ...], n: int, apart: float, spread: float) -> None:
    """Write n seeds of both rows, whose means lie `apart`."""
    for entry in entries:
        if entry.trial.seed < n and not (results / "runs" / entry.trial.key).exists():
            mean = 80 + apart * (entry.trial.options["partitions"] == 4)
            write_run(results, entry.trial, around(mean, spread, n)[entry.trial.seed])


def seeds_of(entries: list[Entry]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in entries:
        found.setdefault(entry.trial.options["partitions"], []).append(entry.trial.seed)
    return found


def asked(whole: Study, most: int = 20) -> dict[int, list[int]]:
    frame = runs_frame(whole.entries, scan(whole.results))
    return seeds_of(next_look(evaluate(frame, whole.ablation.spec), whole.entries, most))


def test_the_first_look_asks_for_six_seeds_of_both_rows(tmp_path: Path) -> None:
    assert asked(study(tmp_path)) == {1: list(range(6)), 4: list(range(6))}
    assert asked(study(tmp_path), most=5) == {}


def test_what_is_open_after_a_look_asks_for_the_next_one(tmp_path: Path) -> None:
    whole = study(tmp_path)
    write(tmp_path, whole.entries, 6, apart=0.2, spread=1.0)
    assert asked(whole) == {1: list(range(12)), 4: list(range(12))}
    part = whole.next_look()
    assert part is not None
    assert seeds_of(list(part.entries)) == {1: list(range(6, 12)), 4: list(range(6, 12))}
    assert study(tmp_path, seeds=11).next_look() is None
    write(tmp_path, whole.entries, 20, apart=0.2, spread=1.0)
    assert whole.next_look() is None  # the last look was made


def test_what_is_answered_asks_for_nothing(tmp_path: Path) -> None:
    whole = study(tmp_path)
    write(tmp_path, whole.entries, 6, apart=5.0, spread=0.5)
    assert whole.next_look() is None
    assert [part.entries for part in whole.all_looks()] == [(), ()]


def test_the_likely_cost_follows_what_was_measured_and_the_largest_does_not(tmp_path: Path) -> None:
    whole = study(tmp_path)
    likely, most = whole.all_looks()
    assert len(likely.entries) == len(most.entries) == 40
    write(tmp_path, whole.entries, 6, apart=1.3, spread=0.8)
    frame = runs_frame(whole.entries, scan(tmp_path))
    evaluation = evaluate(frame, whole.ablation.spec)
    (comparison,) = evaluation.answers[0].comparisons
    assert comparison.answer.word == "not resolved" and comparison.needed == 12
    parts = all_looks(evaluation, whole.entries, 20)
    assert [max(entry.trial.seed for entry in part) for part in parts] == [11, 19]
    assert [len(part.entries) for part in whole.all_looks()] == [12, 28]


def test_seeds_that_have_run_before_are_reported_beside_those_asked_for(tmp_path: Path) -> None:
    whole = study(tmp_path, seeds=8)
    write(tmp_path, whole.entries, 8, apart=5.0, spread=0.5)
    two = study(tmp_path, seeds=2)
    entries = with_others(two.ablation, "smoke", two.entries, scan(tmp_path), only=ROWS)
    assert seeds_of(entries) == {1: list(range(8)), 4: list(range(8))}
    assert list(two.runs["seed"]).count(7) == 2
    assert set(two.table["n"]) == {8}


def test_what_is_published_counts_as_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = study(tmp_path, seeds=6)
    write(tmp_path, whole.entries, 6, apart=5.0, spread=0.5)
    assert main(["publish", str(FILE), "--scale", "smoke", "--results", str(tmp_path)]) == 0
    for folder in (tmp_path / "runs").iterdir():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink()
        folder.rmdir()
    assert (tmp_path / "smoke" / "partitions" / TRIALS).is_file()
    assert study(tmp_path).next_look() is None
    one = study(tmp_path, seeds=1)
    assert set(one.table["n"]) == {6}


def test_looks_take_the_seeds_from_zero_whatever_else_has_run(tmp_path: Path) -> None:
    whole = study(tmp_path)
    for entry in whole.entries:
        if entry.trial.seed >= 6:  # fourteen seeds that would resolve it
            write_run(
                tmp_path,
                entry.trial,
                80.0 + entry.trial.seed / 100 + 5 * entry.trial.options["partitions"],
            )
    evaluation = evaluate(runs_frame(whole.entries, scan(tmp_path)), whole.ablation.spec)
    (comparison,) = evaluation.answers[0].comparisons
    assert (comparison.answer.n, comparison.answer.word) == (0, "not resolved")
    assert asked(whole) == {1: list(range(6)), 4: list(range(6))}


def test_what_cannot_be_had_is_not_asked_for_again(tmp_path: Path) -> None:
    whole = study(tmp_path)
    part = whole.next_look()
    assert part is not None
    write(tmp_path, whole.entries, 5, apart=0.1, spread=1.0)
    keys = [entry.trial.key for entry in part.entries]
    assert whole.next_look(keys) is None  # its sixth seeds have failed
    write(tmp_path, whole.entries, 6, apart=0.1, spread=1.0)
    again = whole.next_look(keys)
    assert again is not None and len(again.entries) == 12


def test_a_row_that_fails_does_not_keep_other_claims_from_their_looks(tmp_path: Path) -> None:
    claims = [{"asks": "?", "better": {"partitions": 4}, "than": {"partitions": k}} for k in (1, 2)]
    whole = Study.read(FILE, scale="smoke", only=("c_gap",), seeds=20, results=tmp_path)
    spec = whole.ablation.spec.model_copy(
        update={"claims": tuple(Claim.model_validate(claim) for claim in claims)}
    )
    failed = []
    for entry in whole.entries:
        kappa, seed = entry.trial.options["partitions"], entry.trial.seed
        if seed < 6 and (kappa, seed) != (2, 3):
            write_run(tmp_path, entry.trial, around(80, 1.0, 6)[seed])
        elif seed < 6:
            failed.append(entry.trial.key)
    evaluation = evaluate(runs_frame(whole.entries, scan(tmp_path)), spec)
    assert seeds_of(next_look(evaluation, whole.entries, 20)) == {
        2: list(range(6)),
        4: list(range(6)),
    }
    later = next_look(evaluation, whole.entries, 20, failed)
    assert seeds_of(later) == {1: list(range(12)), 4: list(range(12))}


def test_rows_that_may_spend_alike_run_before_a_claim_at_equal_flops(tmp_path: Path) -> None:
    file = ABLATIONS / "budget.yaml"
    whole = Study.read(file, scale="smoke", seeds=20, results=tmp_path)
    spec = whole.ablation.spec
    alike = spec.model_copy(update={"claims": tuple(c for c in spec.claims if c.equal)})
    evaluation = evaluate(runs_frame(whole.entries, scan(tmp_path)), alike)
    wanted = next_look(evaluation, whole.entries, 20)
    assert {entry.trial.method for entry in wanted} == {"c_gap", "rigl"}
    assert {entry.trial.seed for entry in wanted} == set(range(6))
    for entry in wanted:
        write_run(tmp_path, entry.trial, 80.0 + entry.trial.seed)  # which all spend alike
    evaluation = evaluate(runs_frame(whole.entries, scan(tmp_path)), alike)
    assert {entry.trial.seed for entry in next_look(evaluation, whole.entries, 20)} == set(
        range(12)
    )


def test_each_row_has_its_own_seeds_and_those_that_chose_a_recipe_are_none(tmp_path: Path) -> None:
    whole = study(tmp_path, seeds=4)
    write(tmp_path, whole.entries, 4, apart=5.0, spread=0.5)
    pilot = Study.read(FILE, scale="smoke", only=ROWS, seeds=(900,), results=tmp_path)
    write_run(tmp_path, pilot.entries[0].trial, 99.0)
    some = [
        e for e in whole.entries if e.trial.seed < (4 if e.trial.options["partitions"] == 1 else 2)
    ]
    entries = with_others(whole.ablation, "smoke", some, scan(tmp_path), only=ROWS)
    assert seeds_of(entries) == {1: list(range(4)), 4: list(range(4))}
    only = (*ROWS, "seed=0")
    first = [entry for entry in some if entry.trial.seed == 0]
    assert with_others(whole.ablation, "smoke", first, scan(tmp_path), only=only) == first
    assert with_others(
        pilot.ablation, "smoke", pilot.entries, scan(tmp_path), only=("seed=900",)
    ) == (list(pilot.entries))


def test_an_ablation_without_claims_has_nothing_to_resolve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ABLATIONS.parent / "baselines" / "dense.yaml"
    assert not read(file).spec.claims
    with pytest.raises(UserError, match=r"dense\.yaml: no claims to resolve"):
        Study.read(file, scale="smoke", seeds=20, results=tmp_path).next_look()
    command = ["run", str(file), "--scale", "smoke", "--until-resolved", "--results", str(tmp_path)]
    assert main(command) == 2
    assert "no claims to resolve" in capsys.readouterr().err
    assert main([*command, "--seeds", "3"]) == 2
    assert "--until-resolved: picks the trials itself: leave --seeds out" in capsys.readouterr().err
    assert main(["run", str(file), "--scale", "smoke", "--max-seeds", "6"]) == 2
    assert "--max-seeds: needs --until-resolved" in capsys.readouterr().err


@pytest.mark.slow
def test_until_resolved_runs_what_a_look_lacks_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, study(tmp_path, seeds=5).entries, 5, apart=20.0, spread=0.5)
    only = [part for pattern in ROWS for part in ("--only", pattern)]
    command = ["run", str(FILE), "--scale", "smoke", *only, "--results", str(tmp_path)]
    command += ["--executor", "debug", "--until-resolved"]
    assert main([*command, "-n"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "30 trials, 180 machine-epochs" in told and "The open claims need at most these" in told
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "2 trials, 0 done, 2 to run" in told and "supported" in told
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "to run" not in told and "supported" in told
    damaged = next((tmp_path / "runs").iterdir()) / "trial.json"
    damaged.write_text("{")
    assert main(command) == 1  # said once, and not tried for ever
    told = capsys.readouterr().out
    assert told.count("1 trials, 1 done, 0 to run") == 1 and "unusable" in told

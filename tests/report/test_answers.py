from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.analysis.cells import Results, results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.comparisons import of_claim
from gapbench.analysis.evaluation import Answer, evaluate
from gapbench.base.documents import write_json
from gapbench.errors import UserError
from gapbench.report.answers import ANSWERS, check_answers, differences_words, write_answers
from gapbench.report.publish import publish
from gapbench.spec.schema import Claim
from tests.report.folders import around, entry_of, result_of, spec_of, trial_of, write_result
from tests.report.test_build import ablation, entries_of

LAYOUT = {"rows": ["label", "distribution", "epochs"]}


def results(folder: Path, *rows: tuple[str, dict[str, object], list[float]]) -> Results:
    """Return results of rows given as method, settings and the value of each seed that has run."""
    entries = []
    for method, settings, values in rows:
        for seed in range(max(3, len(values))):
            trial = trial_of(method, seed=seed, **settings)
            entries.append(entry_of(trial))
            if seed < len(values):
                write_result(folder, trial, values[seed])
    (found,) = results_of(runs_frame(entries, scan(folder)), spec_of(**LAYOUT))
    return found


def answer(found: Results, **claim: object) -> Answer:
    whole = Claim.model_validate({"asks": "Is it?", **claim})
    return Answer(whole, found, tuple(of_claim(found, whole)))


def pairs(found: Results, **claim: object) -> list[tuple[str, str]]:
    compared = answer(found, **claim).comparisons
    return [(c.row.settings["method"], c.reference.settings["method"]) for c in compared]


def test_rows_of_other_methods_need_not_share_their_epochs(tmp_path: Path) -> None:
    found = results(tmp_path, ("c_gap", {}, []), ("rigl", {"epochs": 12, "times": 5}, []))
    claim = {"better": {"method": "c_gap"}, "than": {"method": "rigl"}}
    assert pairs(found, **claim) == [("c_gap", "rigl")]
    assert pairs(found, **claim, equal="epochs") == [("c_gap", "rigl")]  # 60 = 12 x 5


def test_at_equal_epochs_only_rows_of_equal_epochs_are_compared(tmp_path: Path) -> None:
    found = results(tmp_path, ("c_gap", {}, []), ("rigl", {}, []), ("rigl", {"times": 5}, []))
    claim = {"better": {"method": "c_gap"}, "than": {"method": "rigl"}, "equal": "epochs"}
    (compared,) = answer(found, **claim).comparisons
    assert compared.reference.name == "RigL"


def test_rows_of_one_method_share_their_epochs_and_other_fields(tmp_path: Path) -> None:
    rows = [("c_gap", {"strategy": s, "distribution": d}, []) for s in ("cyclic", "random")
            for d in ("uniform", "erk")]  # fmt: skip
    entries = [entry_of(trial_of(m, **settings)) for m, settings, _ in rows]
    layout = {"rows": ["strategy", "distribution"]}
    (found,) = results_of(runs_frame(entries, scan(tmp_path)), spec_of(**layout))
    compared = answer(found, better={"strategy": "cyclic"}, than={"strategy": "random"}).comparisons
    shared = [(c.row.fields[1], c.reference.fields[1]) for c in compared]
    assert shared == [("uniform", "uniform"), ("erk", "erk")]


def test_at_equal_flops_rows_within_five_percent_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {"c_gap": 0.200, "rigl": 0.209, "static": 0.211}
    monkeypatch.setattr(
        "tests.report.folders.result_of",
        lambda trial, value, metrics=None: {
            **result_of(trial, value, metrics),
            "cost": {"train_flops_ratio": costs[trial.method]},
        },
    )
    claim = {"better": {"method": "c_gap"}, "than": {"method": ["rigl", "static"]},
             "equal": "train_flops"}  # fmt: skip
    found = results(tmp_path, *((method, {}, [80.0, 81.0]) for method in costs))
    assert pairs(found, **claim) == [("c_gap", "rigl")]
    costs["rigl"] = 0.3
    rows = [(method, {}, [80.0, 81.0, 82.0]) for method in costs]
    assert answer(results(tmp_path / "all", *rows), **claim).verdict == "no rows with similar FLOPs"
    others = answer(results(tmp_path / "others", *rows, ("set", {}, [])), **claim)
    assert others.verdict == "no rows with similar FLOPs"  # the claim is not about SET
    none = answer(results(tmp_path / "none", ("c_gap", {}, []), ("rigl", {}, [])), **claim)
    assert none.comparisons == () and none.verdict == "not run"


def test_every_row_that_a_claim_names_is_compared_with_dense_training(tmp_path: Path) -> None:
    dense, erk = ("dense", {}, around(90, 0.1, 6)), ("c_gap", {"distribution": "erk"}, [90.0])
    rows = [dense, ("rigl", {}, around(70, 0.1, 6)), erk, ("static", {}, []), ("set", {}, [50.0])]
    found = results(tmp_path, *rows)
    named = {"better": {"method": ["c_gap", "rigl", "static"]}, "than": {"method": "dense"}}
    matched = answer(found, **named, margin=1.0)
    assert [c.row.method for c in matched.comparisons] == ["rigl", "c_gap", "static"]
    assert matched.verdict == "contradicted in 1 of 2 comparisons, not resolved in 1; 1 not run"
    assert differences_words(matched) == (
        "RigL, uniform against Dense: -20.00 ± 0.14 points (n = 6, margin 1); "
        "C-GaP, ERK against Dense: +0.00 points (n = 1, 6, margin 1, first look at 6 seeds)"
    )


def test_unlike_epochs_stand_beside_the_difference(tmp_path: Path) -> None:
    found = results(tmp_path, ("c_gap", {}, [80.0]), ("rigl", {"times": 5}, [70.0]))
    words = differences_words(answer(found, better={"method": "c_gap"}, than={"method": "rigl"}))
    assert words.startswith("C-GaP against RigL 5x (60 against 300 machine-epochs): +10.00")


def test_one_seed_is_said_and_has_no_interval(tmp_path: Path) -> None:
    found = results(tmp_path, ("c_gap", {}, [80.0]), ("rigl", {}, [70.0]))
    one = answer(found, better={"method": "c_gap"}, than={"method": "rigl"})
    assert one.verdict == "not resolved (ONE SEED)"
    assert (
        differences_words(one) == "C-GaP against RigL: +10.00 points (n = 1, first look at 6 seeds)"
    )


def test_of_many_differences_the_most_and_the_least_favourable_are_shown(tmp_path: Path) -> None:
    rows = [
        ("c_gap", {"epochs": epochs}, [float(epochs), epochs + 1.5]) for epochs in range(60, 66)
    ]
    found = results(tmp_path, ("dense", {}, [66.0, 66.0]), *rows)
    asked = {"better": {"method": "c_gap"}, "than": {"method": "dense"}, "margin": 0.5}
    words = differences_words(answer(found, **asked))
    assert words.startswith("6 comparisons; most in favour: C-GaP, uniform, 65 epochs against")
    assert "; least in favour: C-GaP, uniform, 60 epochs against Dense" in words


def test_a_question_that_another_task_answers_is_not_put_to_the_first(tmp_path: Path) -> None:
    entries = [entry_of(trial_of("c_gap")), entry_of(trial_of("rigl"))]
    claims = [{"asks": "?", "better": {"method": "c_gap"}, "than": {"method": m}}
              for m in ("rigl", "set")]  # fmt: skip
    spec = spec_of(**LAYOUT, claims=claims)
    answers = evaluate(runs_frame(entries, scan(tmp_path)), spec).answers
    assert [a.verdict for a in answers] == ["not run", "no such rows"]


def test_answers_are_written_from_what_is_published_and_checked(tmp_path: Path) -> None:
    whole = ablation()
    claims = [{"asks": "4 | <1>?", "better": {"partitions": 4}, "than": {"partitions": 1}}]
    spec = spec_of(rows=["label", "partitions"], claims=claims)
    entries = entries_of(tmp_path)
    publish(whole, "mini", entries, tmp_path, scan(tmp_path))
    path = write_answers(tmp_path, "mini", [spec])
    assert path == tmp_path / "mini" / ANSWERS
    assert (
        r"| 4 \| \<1\>? (partitions, fashion\_mnist) | not resolved | C-GaP, κ = 4 "
        "against C-GaP, κ = 1: -0.95 ± 4.80 points (n = 3, first look at 6 seeds) |\n"
        in path.read_text()
    )
    assert check_answers(tmp_path, "mini", [spec]) == (path, True)
    path.write_text(path.read_text().replace("fashion", "other"))
    assert check_answers(tmp_path, "mini", [spec]) == (path, False)
    path.unlink()
    assert check_answers(tmp_path, "mini", [spec]) == (path, False)
    outside = tmp_path / "outside.md"
    path.symlink_to(outside)
    with pytest.raises(UserError, match="is a link"):
        write_answers(tmp_path, "mini", [spec])
    assert not outside.exists()


def test_a_claim_that_names_no_pattern_is_about_masks_without_one(tmp_path: Path) -> None:
    rows = [(m, {"pattern": p, "sparsity": 0.5}, []) for m in ("c_gap", "rigl")
            for p in ("unstructured", "2:4")]  # fmt: skip
    found = results(tmp_path, *rows)
    claim = {"better": {"method": "c_gap"}, "than": {"method": "rigl"}}
    (compared,) = answer(found, **claim).comparisons
    assert (compared.row.name, compared.reference.name) == ("C-GaP", "RigL")
    both = {side: {**fields, "pattern": "2:4"} for side, fields in claim.items()}
    (compared,) = answer(found, **both).comparisons
    assert (compared.row.name, compared.reference.name) == ("C-GaP 2:4", "RigL 2:4")


@pytest.mark.parametrize(("reached", "compared"), [(0.907, 1), (0.889, 0), (0.95, 0)])
def test_a_sparsity_that_was_learned_is_compared_within_a_hundredth_of_its_column(
    tmp_path: Path, reached: float, compared: int
) -> None:
    learned = [trial_of("str", seed=seed, distribution="emergent") for seed in range(3)]
    other = [trial_of("rigl", seed=seed) for seed in range(3)]
    for index, trial in enumerate([*learned, *other]):
        folder = write_result(tmp_path, trial, 80 + index)
        if trial in learned:
            result = result_of(trial, 80 + index)
            result["density"]["prunable"] = 1 - reached
            write_json(folder / "result.json", result)
    entries = [entry_of(trial) for trial in (*learned, *other)]
    (found,) = results_of(runs_frame(entries, scan(tmp_path)), spec_of(**LAYOUT))
    cell = next(row for row in found.rows if row.method == "str").cells[0]
    assert cell.reached == pytest.approx(reached)
    claim = {"better": {"method": "str", "distribution": "emergent"},
             "than": {"method": "rigl", "distribution": "uniform"}}  # fmt: skip
    given = answer(found, **claim, at={"sparsity": 0.9})
    assert len(given.comparisons) == compared


def test_a_narrow_dense_network_is_compared_where_it_is_named(tmp_path: Path) -> None:
    small = {"distribution": "dense", "sparsity": 0.0, "as_small_as": 0.9}
    found = results(
        tmp_path,
        ("small_dense", {**small, "task_options": {"width": 5}, "full_width": 16}, [70, 71, 72]),
        ("c_gap", {}, [80, 81, 82]),
        ("dense", {}, [85, 86, 87]),
    )
    both = {"better": {"method": ["c_gap", "small_dense"]}, "than": {"method": "dense"}}
    assert pairs(found, **both) == [("small_dense", "dense"), ("c_gap", "dense")]
    assert {row.method: len(row.cells) for row in found.rows}["small_dense"] == 1
    assert found.columns == (0.9,)  # it stands under the sparsity that it is as small as

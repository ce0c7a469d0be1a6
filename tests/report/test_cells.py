from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as scipy_stats

from gapbench.analysis.cells import Results, results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.comparisons import of_claim, to_baseline
from gapbench.errors import UserError
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec, Claim
from gapbench.tasks.task import Recipe
from tests.report.folders import entry_of, spec_of, trial_of, write_run

FOUR = [88.5, 88.1, 87.8]
ONE = [87.9, 87.9, 87.1]

RECIPE = Recipe(epochs=100, batch_size=256, lr=0.1)


def results(tmp_path: Path, entries: list[Entry], spec: AblationSpec) -> list[Results]:
    return results_of(runs_frame(entries, scan(tmp_path)), spec)


def partitions(tmp_path: Path, **values: list[float | None]) -> list[Entry]:
    """Write C-GaP runs: {"4": values of the seeds with four partitions}; None is not run."""
    entries = []
    for count, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            trial = trial_of(seed=seed, partitions=int(count))
            entries.append(entry_of(trial))
            if value is not None:
                write_run(tmp_path, trial, value)
    return entries


SPEC: dict[str, Any] = {"rows": ["label", "partitions"], "baseline": {"partitions": 1}}


def test_a_cell_holds_the_seeds_of_one_configuration(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": FOUR, "1": ONE})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    assert [row.fields for row in found.rows] == [("C-GaP", "4"), ("C-GaP", "1")]
    assert found.columns == (0.9,)
    cell = found.rows[0].cells[0]
    assert cell.values == {0: 88.5, 1: 88.1, 2: 87.8} and cell.planned == 3
    assert cell.summary is not None and cell.summary.mean == pytest.approx(sum(FOUR) / 3)
    assert cell.costs["cost/train_flops_ratio"] == 0.375


def test_mixing_configurations_in_a_cell_is_refused_with_the_setting_to_add(
    tmp_path: Path,
) -> None:
    entries = partitions(tmp_path, **{"4": FOUR, "1": ONE})
    with pytest.raises(UserError, match=r"report\.rows: .* differ in partitions \(4, 1\)"):
        results(tmp_path, entries, spec_of(rows=["label"]))


@pytest.mark.parametrize(
    ("report", "key"),
    [({"rows": ["labels"]}, "rows"), ({"columns": "sparse"}, "columns"),
     ({"baseline": {"kappa": 1}}, "baseline")],
)  # fmt: skip
def test_an_unknown_field_is_named_with_the_valid_ones(
    tmp_path: Path, report: dict[str, Any], key: str
) -> None:
    entries = partitions(tmp_path, **{"4": FOUR})
    with pytest.raises(UserError, match=rf"report\.{key}: .*valid: .*partitions"):
        results(tmp_path, entries, spec_of(**report))


def test_an_unknown_value_is_named_with_the_measured_ones(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": FOUR})
    with pytest.raises(UserError, match=r"'test/f1': .*valid: test/accuracy"):
        results(tmp_path, entries, spec_of(rows=["label"], value="test/f1"))


def test_differences_are_paired_by_seed_and_holm_corrected(tmp_path: Path) -> None:
    two = [88.0, 88.3, 87.9]
    entries = partitions(tmp_path, **{"4": FOUR, "2": two, "1": ONE})
    spec = spec_of(**SPEC)
    (found,) = results(tmp_path, entries, spec)
    compared = to_baseline(found, spec.report.baseline)
    assert [c.row.name for c in compared] == ["C-GaP, κ = 4", "C-GaP, κ = 2"]
    raw = [scipy_stats.ttest_rel(values, ONE).pvalue for values in (FOUR, two)]
    low, high = sorted(raw)
    corrected = {low: min(1, 2 * low), high: max(min(1, 2 * low), high)}
    for comparison, p in zip(compared, raw, strict=True):
        assert comparison.difference is not None
        assert comparison.difference.p == pytest.approx(p)
        assert comparison.p_holm == pytest.approx(corrected[p])
        assert comparison.verdict == "no difference shown"


def test_a_clear_difference_gets_its_word(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": [90.0, 90.1, 90.3], "1": [80.0, 80.2, 80.1]})
    spec = spec_of(**SPEC)
    (found,) = results(tmp_path, entries, spec)
    assert to_baseline(found, spec.report.baseline)[0].verdict == "better"
    (worse,) = to_baseline(found, {"partitions": 4})
    assert worse.verdict == "worse"


def test_with_several_baseline_rows_the_one_with_equal_fields_is_taken(tmp_path: Path) -> None:
    entries = []
    for distribution in ("uniform", "global_magnitude"):
        for strategy in ("cyclic", "random"):
            for seed in range(2):
                trial = trial_of(seed=seed, strategy=strategy, distribution=distribution)
                entries.append(entry_of(trial))
                write_run(tmp_path, trial, 80 + 3 * seed + len(strategy) + seed**2)
    spec = spec_of(rows=["label", "strategy", "distribution"], baseline={"strategy": "cyclic"})
    (found,) = results(tmp_path, entries, spec)
    pairs = [(c.row.name, c.reference.name) for c in to_baseline(found, spec.report.baseline)]
    assert pairs == [
        ("C-GaP, random, uniform", "C-GaP, cyclic, uniform"),
        ("C-GaP, random, global magnitude", "C-GaP, cyclic, global magnitude"),
    ]


def test_epochs_of_a_baseline_are_machine_epochs(tmp_path: Path) -> None:
    trials = [trial_of(epochs=60), trial_of(epochs=300), trial_of("rigl", times=5)]
    spec = spec_of(rows=["label", "epochs"], baseline={"method": "c_gap"})
    (found,) = results(tmp_path, [entry_of(trial) for trial in trials], spec)
    pairs = [(c.row.name, c.reference.name) for c in to_baseline(found, spec.report.baseline)]
    assert pairs == [("RigL 5x, 300 epochs", "C-GaP, 300 epochs")]


def test_dense_rows_are_repeated_in_every_sparsity_column_and_can_be_the_baseline(
    tmp_path: Path,
) -> None:
    entries = []
    for seed in range(2):
        for trial in (
            trial_of("dense", seed=seed),
            trial_of(seed=seed, sparsity=0.9),
            trial_of(seed=seed, sparsity=0.8),
        ):
            entries.append(entry_of(trial))
            write_run(tmp_path, trial, 90 - 10 * trial.sparsity + seed * (1 + trial.sparsity))
    spec = spec_of(rows=["label"], baseline={"method": "dense"})
    (found,) = results(tmp_path, entries, spec)
    assert found.columns == (0.8, 0.9) and found.repeated
    assert found.rows[0].cells[0] == found.rows[0].cells[1]
    assert [c.column for c in to_baseline(found, spec.report.baseline)] == [0.8, 0.9]


def test_diverged_and_missing_seeds_are_in_no_mean(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": [88.0, math.nan, None, 89.0]})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    cell = found.rows[0].cells[0]
    assert cell.summary is not None and (cell.summary.n, cell.summary.mean) == (2, 88.5)
    assert cell.diverged == (1,) and cell.planned == 4 and cell.states == {"planned": 1}


def test_each_task_has_results_of_its_own_and_its_own_metric(tmp_path: Path) -> None:
    image, text = trial_of(), trial_of(task="docs_en_de", task_options={})
    write_run(tmp_path, image, 88.0)
    spec = spec_of(rows=["label"])
    found = results(tmp_path, [entry_of(image), entry_of(text)], spec)
    assert [(r.task, r.value) for r in found] == [
        ("fashion_mnist", "test/accuracy"),
        ("docs_en_de", "test/bleu"),
    ]


def test_lower_loss_is_better(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": FOUR})
    (found,) = results(tmp_path, entries, spec_of(rows=["label"], value="test/loss"))
    assert not found.metric.higher_is_better


def test_published_values_stand_beside_the_rows_that_repeat_them(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": FOUR, "2": ONE, "1": ONE})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    published = [row.cells[0].published for row in found.rows]
    assert [p and p.value for p in published] == ["76.3", None, "75.9"]
    assert published[0] is not None and published[0].table == "partitions"


def test_a_variant_that_no_paper_ran_has_no_published_value(tmp_path: Path) -> None:
    entries = [entry_of(trial_of(restart=restart)) for restart in (True, False)]
    (found,) = results(tmp_path, entries, spec_of(rows=["label", "restart"]))
    values = [row.cells[0].published and row.cells[0].published.value for row in found.rows]
    assert values == ["76.3", None]


def test_on_the_papers_own_task_epochs_must_be_those_of_the_paper(tmp_path: Path) -> None:
    trials = [
        trial_of("rigl", task="imagenet", recipe=RECIPE, epochs=100, times=m) for m in (1, 5, 12)
    ]
    trials.append(trial_of("c_gap", task="imagenet", task_options={}, epochs=990))
    trials.append(trial_of("dense", task="imagenet", task_options={}, epochs=90))
    (found,) = results(tmp_path, [entry_of(t) for t in trials], spec_of(rows=["label"]))
    values = [row.cells[0].published and row.cells[0].published.value for row in found.rows]
    assert values == ["72.0", "75.7", "76.0", "76.3", None]


def test_a_published_value_goes_with_every_recipe_of_its_row(tmp_path: Path) -> None:
    given = {"task": "imagenet", "recipe": RECIPE, "epochs": 100}
    usual = trial_of("rigl", **given)
    own = usual.model_copy(update={"recipe": usual.recipe.model_copy(update={"lr": 1.6})})
    entries = [entry_of(usual), entry_of(own)]
    (found,) = results(tmp_path, entries, spec_of(rows=["label", "recipe.lr"]))
    values = [row.cells[0].published and row.cells[0].published.value for row in found.rows]
    assert values == ["72.0", "72.0"]


def test_dsd_is_published_as_one_partition(tmp_path: Path) -> None:
    (found,) = results(tmp_path, [entry_of(trial_of("dsd"))], spec_of(rows=["label"]))
    published = found.rows[0].cells[0].published
    assert published is not None and published.value == "75.9"


def test_a_claim_is_answered_by_the_rows_that_it_names(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": [90.0, 90.1, 90.3], "1": [80.0, 80.2, 80.1]})
    claim = Claim(asks="Four?", better={"partitions": 4}, than={"partitions": 1})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    (comparison,) = of_claim(found, claim)
    assert (comparison.row.name, comparison.reference.name) == ("C-GaP, κ = 4", "C-GaP, κ = 1")
    assert comparison.verdict == "better"
    elsewhere = Claim(asks="Four?", better={"partitions": 4}, than={"partitions": 3})
    assert of_claim(found, elsewhere) == []

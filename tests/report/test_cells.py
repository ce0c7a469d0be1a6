from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gapbench.analysis.cells import Results, results_of, seed_correlation
from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.comparisons import of_claim, to_baseline
from gapbench.errors import UserError
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec, Claim
from gapbench.tasks.task import Recipe, tasks
from tests.report.folders import around, entry_of, spec_of, trial_of, write_result

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
                write_result(tmp_path, trial, value)
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


def test_differences_are_of_independent_seeds_and_corrected_for_nothing(tmp_path: Path) -> None:
    two = [88.0, 88.3, 87.9, 88.4]
    entries = partitions(tmp_path, **{"4": FOUR, "2": two, "1": ONE})
    spec = spec_of(**SPEC)
    (found,) = results(tmp_path, entries, spec)
    compared = to_baseline(found, spec.report.baseline)
    assert [c.row.name for c in compared] == ["C-GaP, κ = 4", "C-GaP, κ = 2"]
    assert [c.n for c in compared] == [(3, 3), (4, 3)]
    for comparison, values in zip(compared, (FOUR, two), strict=True):
        theirs = scipy_stats.ttest_ind(values, ONE, equal_var=False)
        assert comparison.difference is not None
        assert comparison.p == pytest.approx(theirs.pvalue)
        low, high = theirs.confidence_interval(0.95)
        assert comparison.difference.half_width(0.05) == pytest.approx((high - low) / 2)
        assert comparison.answer.word == "not resolved" and comparison.detectable is None


def test_one_value_is_no_test(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": FOUR, "1": [80.0, math.nan]})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    (compared,) = to_baseline(found, {"partitions": 1})
    assert (compared.n, compared.diverged, compared.run) == ((3, 1), 1, True)
    assert not compared.tested and compared.p is None and compared.needed is None
    assert compared.difference is not None and compared.difference.error == math.inf


def test_a_clear_difference_gets_its_word(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": around(90, 0.1, 6), "1": around(80, 0.1, 6)})
    spec = spec_of(**SPEC)
    (found,) = results(tmp_path, entries, spec)
    (better,) = to_baseline(found, spec.report.baseline)
    (worse,) = to_baseline(found, {"partitions": 4})
    assert (better.answer.word, worse.answer.word) == ("supported", "contradicted")
    assert better.needed is None  # it is resolved
    # error .1 sqrt(.4), at .005 of both sides t(10) = 3.5814: .975 t + .8416 sqrt(1 + t^2 / 20)
    assert better.detectable == pytest.approx(4.5701 * 0.063246, abs=1e-5)


def test_with_several_baseline_rows_the_one_with_equal_fields_is_taken(tmp_path: Path) -> None:
    entries = []
    for distribution in ("uniform", "global_magnitude"):
        for strategy in ("cyclic", "random"):
            for seed in range(2):
                trial = trial_of(seed=seed, strategy=strategy, distribution=distribution)
                entries.append(entry_of(trial))
                write_result(tmp_path, trial, 80 + 3 * seed + len(strategy) + seed**2)
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
            write_result(tmp_path, trial, 90 - 10 * trial.sparsity + seed * (1 + trial.sparsity))
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


def test_seeds_that_learned_nothing_are_in_no_mean(tmp_path: Path) -> None:
    entries = partitions(tmp_path, **{"4": [88.0, 14.99, 15.0, math.inf, 10.0]})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    cell = found.rows[0].cells[0]
    assert cell.values == {0: 88.0, 2: 15.0} and cell.diverged == (1, 3, 4) and cell.n_run == 5
    assert cell.summary is not None and cell.summary.mean == 51.5
    assert {seed for seed, value in cell.by_seed.items() if math.isnan(value)} == {1, 3, 4}


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_seed_whose_loss_is_not_finite_has_diverged(tmp_path: Path, lost: float) -> None:
    trials = [trial_of(seed=seed) for seed in range(3)]
    for trial, loss in zip(trials, (0.5, lost, 0.7), strict=True):
        write_result(tmp_path, trial, 80.0 + trial.seed, {"test/loss": loss})
    (found,) = results(tmp_path, [entry_of(t) for t in trials], spec_of(rows=["label"]))
    cell = found.rows[0].cells[0]
    assert cell.diverged == (1,) and cell.values == {0: 80.0, 2: 82.0}
    assert cell.loss is not None and cell.loss.mean == pytest.approx(0.6)


@pytest.mark.parametrize(("task", "least"), [
    ("fashion_mnist", 15.0), ("digits", 15.0), ("cifar10", 15.0), ("cifar100", 1.5),
    ("imagenet", 0.15), ("docs_en_de", None),
])  # fmt: skip
def test_a_collapse_is_below_one_and_a_half_times_chance(task: str, least: float | None) -> None:
    assert tasks[task].metric.collapsed == least
    assert tasks[task].metric.margin == (0.5 if task == "docs_en_de" else 0.3)


# -- heldout ---------------------------------------------------------------------------------------


def heldout(
    folder: Path, *found: dict[str, float], planned: int = 0, value: str = "test/accuracy"
) -> Results:
    """Return one row whose seeds have a test accuracy of 80, 81, ... and these metrics."""
    trials = [trial_of(seed=seed) for seed in range(len(found) + planned)]
    for trial, metrics in zip(trials, found, strict=False):
        write_result(folder, trial, 80.0 + trial.seed, metrics)
    spec = spec_of(rows=["label"], value=value)
    (made,) = results(folder, [entry_of(trial) for trial in trials], spec)
    return made


def measured(accuracy: float, loss: float = 0.25) -> dict[str, float]:
    return {"heldout/accuracy": accuracy, "heldout/loss": loss}


def test_heldout_images_are_the_value_where_all_completed_trials_have_them(tmp_path: Path) -> None:
    found = heldout(tmp_path, measured(70.0, 0.5), measured(72.0, 0.75), planned=1)
    cell = found.rows[0].cells[0]
    assert found.value == "heldout/accuracy" and found.metric.higher_is_better
    assert cell.values == {0: 70.0, 1: 72.0} and cell.planned == 3
    assert cell.beside is not None and (cell.beside.n, cell.beside.mean) == (2, 80.5)
    assert cell.loss is not None and cell.loss.mean == 0.625


def test_where_one_trial_has_no_heldout_images_the_value_stays_test(tmp_path: Path) -> None:
    found = heldout(tmp_path, measured(70.0), {}, measured(72.0))
    cell = found.rows[0].cells[0]
    assert found.value == "test/accuracy" and cell.beside is None
    assert cell.values == {0: 80.0, 1: 81.0, 2: 82.0}
    assert cell.loss is not None and cell.loss.mean == 0.5


def test_one_row_without_heldout_images_keeps_all_rows_at_test(tmp_path: Path) -> None:
    first, second = trial_of(), trial_of("rigl")
    write_result(tmp_path, first, 80.0, measured(70.0))
    write_result(tmp_path, second, 81.0)
    (found,) = results(tmp_path, [entry_of(first), entry_of(second)], spec_of(rows=["label"]))
    assert found.value == "test/accuracy"
    assert [row.cells[0].values for row in found.rows] == [{0: 80.0}, {0: 81.0}]


def test_before_any_trial_has_run_the_value_is_what_was_asked_for(tmp_path: Path) -> None:
    assert heldout(tmp_path, planned=2).value == "test/accuracy"


@pytest.mark.parametrize(
    ("asked", "value"),
    [("val/accuracy", "val/accuracy"), ("val/loss", "val/loss"), ("test/loss", "heldout/loss")],
)
def test_only_a_value_on_the_test_split_gives_way(tmp_path: Path, asked: str, value: str) -> None:
    found = heldout(tmp_path, measured(70.0), value=asked)
    assert found.value == value
    assert (found.rows[0].cells[0].beside is None) == (asked == value)


def test_a_seed_that_diverged_on_heldout_images_is_in_no_mean_on_test_ones(tmp_path: Path) -> None:
    found = heldout(tmp_path, measured(70.0), measured(math.nan), measured(14.0), measured(72.0))
    cell = found.rows[0].cells[0]
    assert found.value == "heldout/accuracy" and cell.diverged == (1, 2)
    assert cell.beside is not None and (cell.beside.n, cell.beside.mean) == (2, 81.5)


def test_a_loss_that_one_seed_lacks_has_no_mean(tmp_path: Path) -> None:
    found = heldout(tmp_path, measured(70.0), {"heldout/accuracy": 72.0})
    assert found.value == "heldout/accuracy" and found.rows[0].cells[0].loss is None


# -- seeds ---------------------------------------------------------------------------------------


def test_the_correlation_of_seeds_is_the_mean_over_pairs_of_rows(tmp_path: Path) -> None:
    up = [80.0, 81.0, 82.0, 83.0, 84.0, 85.0]
    mixed = [70.0, 75.0, 71.0, 74.0, 72.0, 73.0]
    given = {"4": up, "3": up[::-1], "2": mixed, "1": [80.0] * 6, "5": up[:5]}
    entries = partitions(tmp_path, **given)
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    pair = float(np.corrcoef(up, mixed)[0, 1])
    correlation = seed_correlation(found)
    assert correlation is not None
    # rows of equal values, or of five seeds, have none
    assert correlation == (pytest.approx((-1 + pair - pair) / 3), 3)


def test_rows_must_share_six_seeds_to_correlate(tmp_path: Path) -> None:
    up = [80.0, 81.0, 82.0, 83.0, 84.0, 85.0]
    lost = [*up[:3], math.nan, *up[4:]]
    entries = partitions(tmp_path, **{"4": up, "2": lost})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    assert seed_correlation(found) is None
    assert seed_correlation(found, least=5) == (pytest.approx(1.0), 1)


@pytest.mark.fairseq
def test_each_task_has_results_of_its_own_and_its_own_metric(tmp_path: Path) -> None:
    image, text = trial_of(), trial_of(task="docs_en_de", task_options={})
    write_result(tmp_path, image, 88.0)
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
    cell = found.rows[0].cells[0]
    assert cell.values == {0: 0.5, 1: 0.5, 2: 0.5} and cell.diverged == ()  # below 15, and fine


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
    entries = partitions(tmp_path, **{"4": around(90, 0.1, 6), "1": around(80, 0.1, 6)})
    claim = Claim(asks="Four?", better={"partitions": 4}, than={"partitions": 1})
    (found,) = results(tmp_path, entries, spec_of(**SPEC))
    (comparison,) = of_claim(found, claim)
    assert (comparison.row.name, comparison.reference.name) == ("C-GaP, κ = 4", "C-GaP, κ = 1")
    assert comparison.answer.word == "supported"
    elsewhere = Claim(asks="Four?", better={"partitions": 4}, than={"partitions": 3})
    assert of_claim(found, elsewhere) == []

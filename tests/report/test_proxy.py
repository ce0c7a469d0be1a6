"""The page of the proxy: four tests on validation data, with intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.proxy import Check, checks
from gapbench.report.proxy import proxy_grid
from gapbench.spec.grid import Entry
from tests.report.folders import around, entry_of, trial_of, write_result

ROWS = {
    ("dense", 2): (89.0, 0.5),
    ("rigl", 12): (87.0, 0.5),
    ("rigl", 5): (85.0, 0.5),
    ("rigl", 1): (80.0, 0.5),
    ("static", 5): (83.0, 0.5),
    ("static", 1): (80.2, 0.5),
}


def found(
    folder: Path, rows: dict[tuple[str, int], tuple[float, float]], loss: float = 0.4, n: int = 4
) -> dict[str, Check]:
    """Return the tests of rows given as method and multiple with validation accuracy and spread."""
    entries: list[Entry] = []
    for (method, times), (mean, off) in rows.items():
        for seed, value in enumerate(around(mean, off, n)):
            sparse = {} if method == "dense" else {"sparsity": 0.95}
            trial = trial_of(method, seed=seed, times=times, **sparse)
            entries.append(entry_of(trial))
            metrics = {"val/accuracy": value, "val/loss": 0.5, "train/loss": loss + seed / 100}
            write_result(folder, trial, 50.0, metrics)
    told = checks(runs_frame(entries, scan(folder)).to_dict("records"))
    return {check.asks: check for check in told}


def test_a_proxy_in_the_regime_passes_four_tests_on_validation_data(tmp_path: Path) -> None:
    told = found(tmp_path, ROWS)
    differences = {asks: round(check.difference.mean, 3) for asks, check in told.items()}  # type: ignore[union-attr]
    assert differences == {
        "the training loss of dense stays above 0.5 of its validation loss": 0.165,
        "RigL 12x is above RigL 1x": 7.0,
        "dense is above RigL 1x": 9.0,
        "RigL 5x is above static masks 5x": 2.0,
    }
    assert all(check.passed and check.n == (4, 4) for check in told.values())


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        ({("rigl", 12): (80.0, 0.5)}, "RigL 12x is above RigL 1x"),
        ({("rigl", 12): (81.0, 3.0)}, "RigL 12x is above RigL 1x"),  # an interval over 0
        ({("dense", 2): (80.1, 0.5)}, "dense is above RigL 1x"),
        ({("static", 5): (85.0, 0.5)}, "RigL 5x is above static masks 5x"),
    ],
)
def test_a_proxy_out_of_the_regime_fails_the_test_of_it_alone(
    tmp_path: Path, change: dict[tuple[str, int], tuple[float, float]], asks: str
) -> None:
    told = found(tmp_path, {**ROWS, **change})
    assert [check.asks for check in told.values() if not check.passed] == [asks]


def test_a_training_set_that_was_learned_by_heart_is_found(tmp_path: Path) -> None:
    told = found(tmp_path, ROWS, loss=0.003)
    failed = [check.asks for check in told.values() if not check.passed]
    assert failed == ["the training loss of dense stays above 0.5 of its validation loss"]


def test_the_longest_dense_training_counts_and_rows_are_not_mixed(tmp_path: Path) -> None:
    """Shorter dense training has seeds of its own, and is lower."""
    told = found(tmp_path, {("dense", 1): (70.0, 0.5), **ROWS, ("dense", 2): (89.0, 0.5)})
    check = told["dense is above RigL 1x"]
    assert check.difference is not None and check.difference.mean == pytest.approx(9.0)


def test_without_rows_or_seeds_nothing_is_passed_or_failed(tmp_path: Path) -> None:
    few = {key: ROWS[key] for key in (("dense", 2), ("rigl", 1), ("static", 1))}
    told = found(tmp_path / "few", few)
    assert list(told)[1:] == ["dense is above RigL 1x", "RigL is above static masks"]
    one = found(tmp_path / "one", ROWS, n=1)
    assert [check.passed for check in one.values()] == [None] * 4
    lines = proxy_grid(list(one.values())).body
    assert [line[-1].text for line in lines] == ["–"] * 4
    alone = found(tmp_path / "alone", {("rigl", 1): (80.0, 0.5)})
    assert [check.difference for check in alone.values()] == [None] * 2


def test_the_page_says_where_a_test_holds(tmp_path: Path) -> None:
    told = found(tmp_path, {**ROWS, ("dense", 2): (80.0, 0.5)})
    lines = [[text.text for text in line] for line in proxy_grid(list(told.values())).body]
    assert lines[1] == [
        "fashion_mnist", "RigL 12x is above RigL 1x", "0.95", "4, 4", "+7.00 ± 1.00", "yes",
    ]  # fmt: skip
    assert lines[2][-2:] == ["+0.00 ± 1.00", "NO"]

"""What stands beside a mean: spread, loss, the correlation of seeds, and the test split."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from gapbench.report import render
from gapbench.report.numbers import cells_frame
from gapbench.spec.grid import Entry
from tests.report.folders import entry_of, spec_of, trial_of, write_result
from tests.report.test_tables import evaluation, lines, table, texts, write


def with_metrics(
    folder: Path, name: str, *found: tuple[float, dict[str, float]], **options: object
) -> list[Entry]:
    """Write a row of seeds given as the test accuracy and other metrics."""
    trials = [trial_of(seed=seed, **options) for seed in range(len(found))]
    for trial, (value, metrics) in zip(trials, found, strict=True):
        write_result(folder, trial, value, metrics)
    return [entry_of(trial, name) for trial in trials]


def test_the_spread_grid_says_what_a_mean_does_not(tmp_path: Path) -> None:
    values = [(88.0, 0.5), (84.0, 0.75), (10.0, 2.5), (85.0, 1.0), (math.nan, 3.0), (86.0, 0.75)]
    seeds = [(value, {"test/loss": loss}) for value, loss in values]
    entries = with_metrics(tmp_path, "four", *seeds)
    entries += write(tmp_path, "one", [87.0], partitions=1)
    entries += write(tmp_path, "lost", [10.0], partitions=2)
    entries += write(tmp_path, "none", [None], partitions=3)
    grid = table(tmp_path, entries, spec_of(rows=["label"])).grids[-2]
    assert grid.title == "Spread over seeds, and the loss (fashion_mnist)" and not grid.on_screen
    assert grid.head == (
        "method", "sparsity", "n", "diverged", "sd", "median", "lowest", "highest", "loss",
    )  # fmt: skip
    # deviations 2.25, -1.75, -.75, .25 of 85.75: variance 8.75 / 3; losses .5, .75, 1, .75:
    # variance .125 / 3, t(3) = 3.1824
    assert [[cell.text for cell in row] for row in grid.body] == [
        ["four", "0.9", "4", "2", "1.71", "85.50", "84.00", "88.00", "0.7500 ± 0.3248"],
        ["one", "0.9", "1", "0", "–", "87.00", "87.00", "87.00", "0.5000"],
    ]
    assert grid.notes == ("The loss and the value are measured on the same split: test.",)


@pytest.mark.parametrize(("seeds", "told"), [(6, True), (5, False)])
def test_the_correlation_of_seeds_is_told_where_rows_share_six(
    tmp_path: Path, seeds: int, told: bool
) -> None:
    up = [80.0 + seed for seed in range(seeds)]
    entries = [
        entry
        for partitions, values in ((4, up), (2, up), (1, up[::-1]))
        for entry in write(tmp_path, f"κ {partitions}", list(values), partitions=partitions)
    ]
    *first, last = table(tmp_path, entries, spec_of(rows=["label"])).grids[-2].notes
    words = (  # +1, -1 and -1
        "Welch's test assumes independent rows. Values of two rows with the same seed have a mean "
        "correlation of -0.33 over 3 pairs of rows."
    )
    assert first == ([words] if told else [])
    assert last == "The loss and the value are measured on the same split: test."


def test_the_mean_on_the_test_split_stands_beside_heldout_images(tmp_path: Path) -> None:
    four = [(81.0, {"heldout/accuracy": 80.0 + seed, "heldout/loss": 0.25}) for seed in range(2)]
    one = [(71.5, {"heldout/accuracy": 70.0})]
    entries = with_metrics(tmp_path, "four", *four)
    entries += with_metrics(tmp_path, "one", *one, partitions=1)
    entries += write(tmp_path, "none", [None], partitions=2)
    spec = spec_of(rows=["label"], baseline={"partitions": 1})
    found = table(tmp_path, entries, spec)
    grid = found.grids[0]
    assert grid.head == (
        "method", "heldout accuracy (%)", "test", "training FLOPs", "published: imagenet",
    )  # fmt: skip
    assert grid.groups == (("", 1), ("90 % sparse", 4)) and grid.only_in_files == ("test",)
    assert texts(found) == [
        ["four", "80.50 ± 6.35", "81.00", "0.375", "76.3"],
        ["one", "70.00", "71.50", "0.375", "75.9"], ["none", "not run", "–", "–", "–"],
    ]  # fmt: skip
    assert any(
        note.startswith("heldout: labelled images outside the training") for note in grid.notes
    )
    assert texts(found, 1)[0][4] == "+10.50"  # claims are answered by it
    spread = found.grids[-2]
    assert [row[-1].text for row in spread.body] == ["0.2500 ± 0.0000", "–"]
    assert spread.notes == ("The loss and the value are measured on the same split: heldout.",)
    first, second, third = lines(cells_frame(evaluation(tmp_path, entries, spec)))
    assert [line["value"] for line in (first, second, third)] == ["heldout/accuracy"] * 3
    assert (first["mean"], first["test_mean"], first["loss"]) == ("80.5", "81.0", "0.25")
    assert (second["test_mean"], second["loss"]) == ("71.5", "")
    assert (third["test_mean"], third["loss"]) == ("", "")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render.screen([found]))
    shown = console.export_text()
    assert "80.50 ± 6.35" in shown and "81.00" not in shown  # files have it


def test_without_heldout_images_no_column_stands_beside_the_value(tmp_path: Path) -> None:
    entries = with_metrics(tmp_path, "four", (81.0, {"heldout/accuracy": 80.0}), (82.0, {}))
    grid = table(tmp_path, entries, spec_of(rows=["label"])).grids[0]
    assert grid.head[1:3] == ("test accuracy (%)", "training FLOPs")
    assert any("Trials without a value on heldout images: 1." in n for n in grid.notes)

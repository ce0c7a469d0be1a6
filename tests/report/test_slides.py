"""The published tables, with every number in its place."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gapbench.analysis.cells import results_of
from gapbench.analysis.collect import runs_frame, scan
from gapbench.report.grids import Grid
from gapbench.report.slides import slides_grids
from gapbench.spec.ablation import read
from gapbench.spec.selection import expanded
from tests.report.folders import write_result
from tests.runs import ABLATIONS

PUBLISHED = ABLATIONS.parent / "gapbench" / "analysis" / "published.csv"
METRICS = {"imagenet": "accuracy", "wmt14_en_de": "bleu"}


def grids(folder: Path, ablation: str, scale: str, run: float | None = None) -> list[Grid]:
    file = ABLATIONS / f"{ablation}.yaml"
    entries = expanded(file, scale, (), (), "1")[2]
    for entry in entries if run is not None else ():
        write_result(folder, entry.trial, run)
    (found,) = results_of(runs_frame(entries, scan(folder)), read(file).spec)
    return list(slides_grids(found))


@pytest.mark.parametrize(
    ("ablation", "task", "tables"),
    [("main", "imagenet", ("main",)), ("partitions", "imagenet", ("partitions",)),
     ("strategy", "imagenet", ("strategy",)),
     ("translation", "wmt14_en_de", ("translation", "partitions", "strategy"))],
)  # fmt: skip
def test_every_published_number_stands_in_its_place_where_nothing_has_run(
    tmp_path: Path, ablation: str, task: str, tables: tuple[str, ...], fairseq: object
) -> None:
    made = grids(tmp_path, ablation, "paper")
    with open(PUBLISHED, encoding="utf-8") as file:
        lines = [
            line
            for line in csv.DictReader(file)
            if line["table"] in tables and line["task"] == task and line["source"].startswith("GaP")
        ]
    numbers = []
    for grid in made:
        for row in grid.body:
            told = [text.text for text in row]
            cells = [told[start : start + 3] for start in range(grid.keys, len(told) - 1, 3)]
            for (over, _), (stated, measured, gap) in zip(grid.groups[1:-1], cells, strict=True):
                if stated != "–":
                    numbers.append((over, stated))
                    assert (measured, gap) == ("not run", "–"), told
    wanted = [
        (f"{100 * float(line['sparsity']):g} % sparse", line["value"])
        for line in lines
        if float(line["sparsity"])
    ]
    dense = [line["value"] for line in lines if not float(line["sparsity"])]
    assert sorted(numbers) == sorted(
        [*wanted, *((over, value) for value in dense for over, _ in made[0].groups[1:-1])]
    )


def test_rows_are_in_the_order_of_the_slides(tmp_path: Path) -> None:
    (grid,) = grids(tmp_path, "main", "paper")
    assert [tuple(text.text for text in row[:2]) for row in grid.body] == [
        ("Dense", "dense"), ("Prune from dense", "uniform"), ("RigL", "uniform"),
        ("RigL 5x", "uniform"), ("RigL 12x", "uniform"), ("C-GaP", "uniform"),
        ("P-GaP", "uniform"), ("RigL", "ERK"), ("RigL 5x", "ERK"), ("RigL 12x", "ERK"),
        ("C-GaP", "global magnitude"),
    ]  # fmt: skip
    assert grid.head[:3] == ("method", "distribution", "epochs")
    assert grid.body[4][-1].text == "GaP slides (authors' rerun)"


def test_what_was_measured_is_compared_on_the_same_task_alone(tmp_path: Path) -> None:
    (grid,) = grids(tmp_path / "paper", "partitions", "paper", run=75.0)
    assert [text.text for text in grid.body[0][: grid.keys]] == ["C-GaP", "1"]
    told = [[text.text for text in row[grid.keys : -1]] for row in grid.body]
    assert told == [["75.9", "75.00 (n = 1)", "-0.90"], ["76.3", "75.00 (n = 1)", "-1.30"]]
    (proxy,) = grids(tmp_path / "mini", "partitions", "mini", run=85.0)
    assert [text.text for text in proxy.body[1][proxy.keys : -1]] == ["76.3", "85.00 (n = 1)", "–"]
    assert not proxy.on_screen and grid.on_screen

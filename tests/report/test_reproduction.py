from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.experiments.schema import SCALES
from gapbench.report.collect import Scan, read_runs, runs_frame, write_runs
from gapbench.report.reproduction import (
    Finding,
    Reproduction,
    Spread,
    find_original,
    trial_of,
)
from gapbench.selection import expanded
from tests.runs import ABLATIONS

FILES = sorted(ABLATIONS.glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_row_of_runs_csv_holds_all_that_builds_its_trial(
    file: Path, scale: str, tmp_path: Path
) -> None:
    only = [] if scale == "paper" else ["image"]
    if file.stem == "translation":
        pytest.importorskip("fairseq")
        only = []
    entries = expanded(file, scale, (), only, None)[2]
    path = tmp_path / "runs.csv"
    write_runs(runs_frame(entries, Scan({}, {}, ())), path)
    rows = read_runs(path).to_dict("records")
    built = [trial_of({str(name): value for name, value in row.items()}, path) for row in rows]
    assert [t.key for t in built] == [entry.trial.key for entry in entries]
    numbers = [{**t.document(), "budget": ""} for t in built]  # a row has the epochs themselves
    assert numbers == [{**entry.trial.document(), "budget": ""} for entry in entries]


@pytest.mark.parametrize(
    ("value", "seeds", "within", "line"),
    [
        # mean 86, deviation 1, t(2) = 4.302653: 86 -+ 4.968276
        (81.04, (85.0, 86.0, 87.0), True, "within what other seeds show: 81.03 to 90.97"),
        (81.03, (85.0, 86.0, 87.0), False, "81.03 lies outside of what other seeds show: 81.03 to"),
        (90.98, (85.0, 86.0, 87.0), False, "90.98 lies outside of what"),
        (86.0, (85.0, 86.0), None, "86.00 cannot be judged: 3 seeds are needed, the row has 2"),
        (86.0, (), None, "the row has 0"),
    ],
)  # fmt: skip
def test_a_result_of_another_kind_of_machine_is_judged_by_the_rows_seeds(
    value, seeds, within, line
):
    spread = Spread("test/accuracy", value, seeds)
    assert spread.within is within
    assert line in spread.line
    different = (Finding("values", 3, ("test/accuracy: 1 there, 2 here",)),)
    assert Reproduction(different, (), (), spread).agrees is (within is True)
    assert not Reproduction(different, (), (), None).agrees
    assert Reproduction((Finding("values", 3, ()),), (), (), spread).agrees


def test_the_seeds_of_a_row_are_those_that_differ_in_nothing_else():
    """By a committed row of six seeds, whose values stand in its runs.csv."""
    results = Path(__file__).parent.parent.parent / "results" / "mini"
    frame = read_runs(results / "main" / "runs.csv")
    chosen = frame[(frame["task"] == "fashion_mnist") & (frame["method"] == "static")]
    row = chosen.iloc[0]
    alike = chosen[
        (chosen["sparsity"] == row["sparsity"])
        & (chosen["distribution"] == row["distribution"])
        & (chosen["epochs"] == row["epochs"])
    ]
    original = find_original(results.parent, str(row["key"]))
    assert sorted(original.seeds) == sorted(alike["test/accuracy"])
    assert len(original.seeds) == 6

from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.experiments.schema import SCALES
from gapbench.report.collect import Scan, read_runs, runs_frame, write_runs
from gapbench.report.reproduction import trial_of
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
    assert [t.document() for t in built] == [entry.trial.document() for entry in entries]

"""The committed reports are what their runs.csv give, of trials of today's ablations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.report.collect import read_runs
from gapbench.selection import expanded
from tests.runs import ABLATIONS

ROOT = ABLATIONS.parent
MINI = ROOT / "results" / "mini"
FILES = sorted(ABLATIONS.glob("*.yaml"))


def test_tables_and_answers_are_what_the_runs_give(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["report", "--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_rows_are_the_trials_of_the_ablation(file: Path, fairseq):
    frame = read_runs(MINI / file.stem / "runs.csv")
    assert list(frame["key"]) == [e.trial.key for e in expanded(file, "mini", (), (), None)[2]]
    done = frame[frame["state"] == "completed"]
    assert not done["environment/git_dirty"].any()  # or the commit would not tell the code


def test_every_figure_and_page_is_there_and_names_no_folder_of_a_machine():
    assert (MINI / "README.md").is_file()
    for file in FILES:
        folder = MINI / file.stem
        names = json.loads((folder / "figures" / "made_from.json").read_text())["files"]
        assert all((folder / "figures" / name).is_file() for name in names)
    texts = [path.read_text() for path in MINI.rglob("*") if path.suffix in (".csv", ".html")]
    assert not any(place in text for text in texts for place in ("/home/", "/root/", "/tmp/"))

"""What is committed under results/ follows from trials.jsonl, of trials of today's ablations."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.analysis.evidence import read_trials
from gapbench.spec.selection import expanded
from tests.runs import ABLATIONS

ROOT = ABLATIONS.parent
MINI = ROOT / "results" / "mini"
FILES = sorted(ABLATIONS.glob("*.yaml"))


def test_tables_and_answers_are_what_the_trials_give(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["report", "--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_lines_are_the_trials_of_the_ablation(file: Path, fairseq):
    kept = read_trials(MINI / file.stem / "trials.jsonl", ROOT / "results")
    wanted = expanded(file, "mini", (), (), None)[2]
    assert [e.trial.key for e in kept.entries] == [e.trial.key for e in wanted]
    assert [e.name for e in kept.entries] == [e.name for e in wanted]
    # or the commit would not tell the code
    assert not any(run.result["environment"]["git_dirty"] for run in kept.runs)


def test_what_is_committed_is_small_and_names_no_folder_of_a_machine():
    files = [path for path in MINI.rglob("*") if path.is_file()]
    assert len(files) <= 60 and sum(path.stat().st_size for path in files) <= 2e6
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not any(place in text for place in ("/home/", "/root/", "/tmp/")), path

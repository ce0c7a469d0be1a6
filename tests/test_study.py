"""The Python face: an ablation is run, followed and reported from a program."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

import gapbench
from gapbench.errors import UserError
from gapbench.study import Study
from tests.runs import ABLATIONS

FILE = ABLATIONS / "partitions.yaml"
PICKED = {"scale": "smoke", "only": ["partitions=1,2"], "seeds": 1}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return gapbench.run(
        FILE, **PICKED, results=tmp_path_factory.mktemp("results"), executor="debug"
    )


def test_a_run_returns_a_study_whose_table_is_a_frame(done):
    assert isinstance(done, gapbench.Study)
    assert isinstance(done.table, pd.DataFrame)
    assert list(done.table["partitions"]) == [1, 2] and list(done.table["n"]) == [1, 1]
    assert done.table["mean"].between(50, 100).all()
    assert list(done.states()["state"]) == ["completed"] * 2
    assert list(done.runs["test/accuracy"]) == list(done.table["mean"])


def test_a_study_that_is_run_again_trains_nothing(done):
    before = {p: p.stat().st_mtime_ns for p in (done.results / "runs").rglob("*") if p.is_file()}
    again = done.run("debug")
    assert again is done and again.todo().done == 2
    after = {p: p.stat().st_mtime_ns for p in (done.results / "runs").rglob("*") if p.is_file()}
    assert after == before


def test_a_study_is_reported_as_the_command_does_it(done):
    made = done.report()
    assert made.folder == done.results / "reports" / "smoke" / "partitions"
    assert (made.folder / "table.md").is_file()


def test_a_dry_run_is_a_frame_and_leaves_nothing(tmp_path):
    study = Study.read(FILE, **PICKED, results=tmp_path / "results")
    planned = study.dry_run()
    assert list(planned["key"]) == [entry.trial.key for entry in study.entries]
    assert (planned["epochs"] == 6).all()
    assert not study.results.exists()
    assert list(study.states()["state"]) == ["planned"] * 2
    assert study.table["mean"].isna().all()


@pytest.mark.parametrize(
    ("seeds", "expected"), [(2, [0, 1]), ([5], [5]), ("3-4", [3, 4]), ((0, 7), [0, 7])]
)
def test_seeds_are_a_number_or_themselves(seeds, expected):
    study = Study.read(FILE, scale="smoke", only=["partitions=2"], seeds=seeds)
    assert [entry.trial.seed for entry in study.entries] == expected


def test_a_trial_that_fails_is_told_by_its_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "nowhere"))
    rows = "[{method: static, task: imagenet, recipe: {ranks: 1}}]"
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nquestion: why?\nscales: {smoke: {epochs: 1, sparsity: 0.9, seeds: 1}}\n"
        f"trials: {rows}\nreport: {{rows: [label]}}\n"
    )
    study = gapbench.run(file, scale="smoke", results=tmp_path / "results", executor="debug")
    (state,) = study.states().to_dict("records")
    assert state["state"] == "failed" and "imagenet" in state["error"]


@pytest.mark.parametrize(
    ("picked", "words"),
    [
        ({"scale": "smok"}, "unknown scale 'smok': did you mean 'smoke'"),
        ({"settings": ["sparsity=2"]}, "--set: sparsity: 2 is not possible"),
        ({"only": ["nothing"]}, "no trial matches"),
    ],
)
def test_what_does_not_fit_is_a_user_error(picked, words):
    with pytest.raises(UserError, match=words):
        Study.read(FILE, **{"scale": "smoke", **picked})


@pytest.mark.slow
def test_a_program_without_a_terminal_runs_trials_in_processes_of_their_own(tmp_path):
    program = (
        "import gapbench; study = gapbench.run("
        f"{str(FILE)!r}, scale='smoke', only=['partitions=1,2'], seeds=1); "
        "print(study.table['mean'].notna().sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr

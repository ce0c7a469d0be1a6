"""Waiting for trials, and the bar that programs and notebooks see meanwhile."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from gapbench.launch import following
from gapbench.launch.following import epoch_bar, follow, settled
from gapbench.launch.queue import Listed, Queue
from gapbench.launch.submissions import Submission
from gapbench.runs.store import LOST_AFTER, RunFolder
from gapbench.study import Study
from tests.report.folders import trial_of, write_result
from tests.runs import ABLATIONS


class Started:
    """A launch that has something to do three times."""

    left = 3

    def poll(self) -> bool:
        self.left -= 1
        return self.left > 0


def shown(folders: dict[RunFolder, int], terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with epoch_bar(folders, console) as show:
        follow(Started(), lambda: False, show)
    return re.sub(r"\x1b\[[0-9;?]*\w", "", console.file.getvalue())


def test_the_bar_counts_epochs_of_trials_that_run_and_that_have_completed(tmp_path: Path) -> None:
    done, running = (trial_of(seed=seed) for seed in (0, 1))
    write_result(tmp_path, done, 90.0)
    folders = {RunFolder(tmp_path / "runs" / trial.key): 20 for trial in (done, running)}
    half = list(folders)[1]
    half.prepare(running.document())
    half.beat(epoch=7.5, epochs=20)
    text = shown(folders, terminal=True)
    assert "1 of 2 trials" in text and "27/40 machine-epochs" in text


def test_nothing_is_drawn_where_nobody_looks(tmp_path: Path) -> None:
    assert shown({RunFolder(tmp_path / "runs" / trial_of().key): 20}, terminal=False) == ""


class Slurm(Queue):
    """A queue whose jobs stay in a state until so much time has passed, and are then cancelled."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.now, self.until = 0.0, seconds

    def ask(self, jobs: Iterable[str]) -> dict[str, Listed]:
        state = "COMPLETING" if self.now < self.until else "CANCELLED"
        return {job: Listed(job, state) for job in jobs}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    queue = Slurm(20)
    monkeypatch.setattr(following, "time", queue)
    monkeypatch.setattr("gapbench.study.Queue", lambda: queue)
    return queue


def cancelled(study: Study, queue: Queue) -> list[RunFolder]:
    """Let jobs of SLURM have begun trials that were then cancelled."""
    folders = [study.folder(entry) for entry in study.entries]
    for folder, entry in zip(folders, study.entries, strict=True):
        folder.prepare(entry.trial.document())
    submission = Submission(study.results)
    assert submission.claim(folders, queue) == folders
    submission.folder.mkdir(parents=True)
    submission.submitted("12", len(folders))
    for folder in folders:
        folder.begin_attempt()
        folder.cancel()
    return folders


def test_a_run_after_a_cancel_has_all_trials_as_soon_as_their_jobs_have_ended(
    tmp_path: Path, slurm: Slurm
) -> None:
    picked = {"scale": "smoke", "only": ["partitions=1,2"], "seeds": 1}
    study = Study.read(ABLATIONS / "partitions.yaml", **picked, results=tmp_path)
    folders = cancelled(study, slurm)
    told: list[str] = []
    todo = study.todo(attach=True, tell=told.append)
    assert [entry.trial.key for entry in todo.entries] == [folder.path.name for folder in folders]
    assert slurm.now == slurm.until and len(told) == 1
    for folder, entry in zip(folders, todo.entries, strict=True):
        folder.prepare(entry.trial.document())
    assert Submission(tmp_path).claim(folders, slurm) == folders


def test_a_job_that_does_not_end_is_not_waited_for_without_end(
    tmp_path: Path, slurm: Slurm
) -> None:
    slurm.until = float("inf")
    study = Study.read(ABLATIONS / "partitions.yaml", scale="smoke", seeds=1, results=tmp_path)
    folders = cancelled(study, slurm)
    assert {seen.state for seen in settled(folders, slurm)} == {"queued"}
    assert slurm.now == LOST_AFTER
    assert Submission(tmp_path).claim(folders, slurm) == []

"""The trials of one job: none takes another with it, and a stop leaves checkpoints."""

from __future__ import annotations

import os
import signal

import pytest

from gapbench.launch.attempts import STALLED, STALLS
from gapbench.launch.packs import PackAttempt, run_as_lanes, run_trials
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import Submission
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from tests.runs import ABLATIONS


@pytest.fixture
def job(tmp_path):
    """Return a job of three trials that one submission has claimed, the first a long one."""
    file, submission = ABLATIONS / "partitions.yaml", Submission(tmp_path)
    jobs = [
        job_of(tmp_path, "tests", expanded(file, "smoke", sets, ["partitions=2"], [seed])[2][0], 1)
        for seed, sets in enumerate((["epochs=2000"], (), ()))
    ]
    submission.claim_packs([[RunFolder(job.folder) for job in jobs]], Queue())
    return PackAttempt(jobs, submission.name, 1)


@pytest.fixture
def pack(job):
    """Return the trials of the job."""
    return job.trials


def training(folder):
    """Return what is known of the process that trains a trial, or None: none does yet."""
    return folder.living_owner() if folder.read_status().get("epoch") else None


def test_a_killed_trial_or_one_that_has_left_does_not_stop_the_others(pack):
    killed, left, last = (trial.run for trial in pack)

    def interfere():
        if owner := training(killed):
            left.submitted.unlink(missing_ok=True)
            os.kill(owner["pid"], signal.SIGKILL)
        return False

    assert run_trials(pack, 1, interfere) == [-signal.SIGKILL, 0, 0]
    assert (killed.state(), left.state(), last.state()) == ("lost", "planned", "completed")
    assert [trial.open() for trial in pack] == [True, False, False]


def test_a_stop_ends_the_trials_that_run_and_begins_no_other(pack):
    long, second, third = (trial.run for trial in pack)
    asked = []

    def stop():
        asked.append(training(long))
        return any(asked)

    assert run_trials(pack, 1, stop) == [0]
    assert [run.state() for run in (long, second, third)] == ["interrupted", "queued", "queued"]
    assert long.checkpoint.exists()
    assert all(trial.open() for trial in pack)


def test_a_job_on_a_gpu_trains_its_trials_in_one_process(pack):
    _, left, last = (trial.run for trial in pack)
    left.submitted.unlink()
    assert run_as_lanes(pack[1:], lambda: False) == [0, 0]
    assert (left.state(), last.state()) == ("planned", "completed")


def test_trials_that_come_no_step_further_fail_and_those_behind_them_have_their_turn(job):
    long, second, third = job.trials
    long.run.begin_attempt()
    long.run.end_attempt("interrupted")
    for _ in range(STALLS - 1):
        assert job._left(job.trials, 1, moved=False) == [long, second, third]
    assert job._left(job.trials, 1, moved=True) == [long, second, third]
    for _ in range(STALLS - 1):
        assert job._left(job.trials, 1, moved=False) == [long, second, third]
    assert job._left(job.trials, 1, moved=False) == [second, third]
    assert long.run.read_status()["error"] == STALLED
    assert not long.open()


def test_a_job_too_short_to_begin_anything_is_not_requeued_for_ever(job):
    for _ in range(STALLS - 1):
        assert job._left(job.trials, 0, moved=False) == job.trials
    assert job._left(job.trials, 0, moved=False) == []
    assert [trial.run.state() for trial in job.trials] == ["failed"] * 3

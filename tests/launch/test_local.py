"""Trials side by side on this machine, through submitit: throttled, stopped, killed, cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gapbench.__main__ import main
from gapbench.base.documents import read_json
from gapbench.launch import local
from gapbench.launch.jobs import Attempt, launch
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from tests.runs import ABLATIONS, assert_equal

pytestmark = pytest.mark.slow

ROOT = ABLATIONS.parent
FILE = ABLATIONS / "partitions.yaml"
EPOCHS = "epochs=30"


def start(results, *options, epochs=EPOCHS):
    """Start `gapbench run` on two trials in a process group of its own, as a shell does."""
    words = ["run", FILE, "--scale", "smoke", "--seeds", "2", "--set", epochs, "--results", results]
    words += ["--only", "partitions=2", "--executor", "local", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "gapbench", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def jobs(results, count, *sets):
    """Return jobs of short trials, as `gapbench run` makes them."""
    entries = expanded(FILE, "smoke", sets, ["partitions=2"], str(count))[2]
    return [job_of(results, "partitions", entry, 1) for entry in entries]


def wait_for(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def folders(results):
    return [RunFolder(path) for path in sorted(Path(results).glob("runs/*"))]


def owners(results):
    found = [folder.living_owner() for folder in folders(results)]
    return [owner for owner in found if owner is not None]


def training(results):
    """Say how many trials have begun to train."""
    return sum(
        (read_json(folder.status) or {}).get("epoch", 0) > 0 and bool(folder.living_owner())
        for folder in folders(results)
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The trial of seed 0, run in one go."""
    (job,) = jobs(tmp_path_factory.mktemp("undisturbed"), 1, EPOCHS)
    assert Attempt(job)() == "completed"
    return RunFolder(job.folder)


def assert_completes(results, undisturbed):
    """Complete the trial of seed 0 and compare it with the one that was not disturbed."""
    (job,) = jobs(results, 1, EPOCHS)
    assert Attempt(job)() == "completed"
    assert_equal(undisturbed, RunFolder(job.folder))


def test_a_trial_that_is_killed_leaves_the_others_running_and_goes_on_later(tmp_path, undisturbed):
    work = jobs(tmp_path, 3, EPOCHS)
    started = launch("local", work, 2)
    victim = RunFolder(work[0].folder)
    most = 0
    while started.poll():
        most = max(most, len(owners(tmp_path)))
        if training(tmp_path) == 2 and (owner := victim.living_owner()):
            os.kill(owner["pid"], signal.SIGKILL)
        time.sleep(0.05)
    assert most == 2  # no more than were asked for
    assert [RunFolder(job.folder).state() for job in work] == ["lost", "completed", "completed"]
    assert_completes(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_leaves_trials_time_for_their_checkpoint(
    tmp_path, undisturbed, number
):
    running = start(tmp_path, "--jobs", "2")
    wait_for(lambda: training(tmp_path) == 2)
    os.killpg(running.pid, number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130, output
    assert "run the same command again to go on" in output
    assert [folder.state() for folder in folders(tmp_path)] == ["interrupted"] * 2
    assert_completes(tmp_path, undisturbed)


def test_trials_survive_the_launcher_and_a_second_one_leaves_them_alone(tmp_path, undisturbed):
    running = start(tmp_path, "--jobs", "2")
    wait_for(lambda: training(tmp_path) == 2)
    running.kill()
    running.wait()
    second = start(tmp_path)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another process runs the remaining" in output
    wait_for(lambda: all(folder.completed() for folder in folders(tmp_path)))
    assert_completes(tmp_path, undisturbed)


def test_cancel_stops_running_and_waiting_trials_until_the_next_run(tmp_path, undisturbed, capsys):
    work = jobs(tmp_path, 2, EPOCHS)
    started = launch("local", work, 1)
    assert started.poll()
    wait_for(lambda: training(tmp_path) == 1)
    command = ["cancel", "--results", str(tmp_path)]
    assert main(command) == 0
    assert capsys.readouterr().out.count("asked to stop") == 1
    wait_for(lambda: not started.poll())
    assert [RunFolder(job.folder).state() for job in work] == ["interrupted", "planned"]
    assert main(command) == 0
    assert "nothing is running" in capsys.readouterr().out
    assert_completes(tmp_path, undisturbed)


def test_a_trial_on_another_machine_finds_by_itself_that_it_was_cancelled(tmp_path, monkeypatch):
    from gapbench.execution import recorder

    monkeypatch.setattr(recorder, "BEAT_SECONDS", 0.0)
    (job,) = jobs(tmp_path, 1)
    folder = RunFolder(job.folder)
    folder.cancel()
    assert Attempt(job)() == "interrupted"
    assert not folder.status.exists()  # it did not even begin
    jobs(tmp_path, 1)  # running it again forgets that it was cancelled
    assert not folder.cancelled.exists()
    beats = []

    def beat(self, **fields):
        beats.append(fields)
        if len(beats) == 20:
            self.cancel()

    monkeypatch.setattr(RunFolder, "beat", beat)
    assert Attempt(job)() == "interrupted"
    assert len(beats) < 25
    assert folder.checkpoint.exists()


def test_trials_that_another_process_took_first_are_left_to_it(tmp_path, capsys):
    (job,) = jobs(tmp_path, 1)
    folder = RunFolder(job.folder)
    started = launch("debug", [job], None)
    with folder.owned():
        assert not started.poll()
    assert not folder.completed()
    assert f"being run by process {os.getpid()}" in capsys.readouterr().out


def test_gpus_are_those_that_are_visible(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: X (UUID: a)'\necho 'GPU 1: X (UUID: b)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-7")
    assert local.gpus() == ["3", "MIG-7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.gpus() == []

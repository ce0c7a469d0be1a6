"""Trials that share processes of this machine: which do, how many, and what a user does to them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest

from gapbench.__main__ import main
from gapbench.launch.jobs import Attempt, launch
from gapbench.launch.lanes import as_lanes, sharing, sizes
from gapbench.launch.local import Work, works
from gapbench.runs.store import RunFolder
from gapbench.tasks.task import Resources
from tests.launch.test_local import FILE, folders, jobs, start, training, wait_for
from tests.runs import assert_equal

WAIT = 200  # seconds; on a machine with nothing else to do it takes a few


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Four trials, and nothing of them done."""
    return jobs(tmp_path_factory.mktemp("work"), 4, "epochs=30")


@pytest.fixture(scope="module")
def alone(work):
    """The first of them, completed in this process."""
    assert Attempt(work[0])() == "completed"
    return RunFolder(work[0].folder)


def pids(results):
    return Counter(folder.read_status()["pid"] for folder in folders(results))


@pytest.mark.slow
def test_one_process_trains_several_trials_and_their_logs_are_found(tmp_path, alone, capsys):
    running = start(tmp_path, "--lanes", "2", "--jobs", "2")
    output, _ = running.communicate(timeout=WAIT)
    assert running.returncode == 0, output
    assert "[2/2 done]" in output
    assert list(pids(tmp_path).values()) == [2]
    assert_equal(alone, RunFolder(tmp_path / "runs" / alone.path.name))
    assert main(["logs", alone.path.name, "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Completed after" in printed and "Job completed successfully" in printed


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_of_every_lane_and_the_next_run_goes_on(tmp_path):
    long = "epochs=90"  # a busy machine may take seconds to hand the signal on
    job = jobs(tmp_path / "alone", 1, long)[0]
    assert Attempt(job)() == "completed"
    running = start(tmp_path, "--lanes", "2", epochs=long)
    wait_for(lambda: training(tmp_path) == 2, WAIT)
    reached = [folder.read_status()["epoch"] for folder in folders(tmp_path)]
    os.killpg(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=WAIT)
    assert running.returncode == 130, output
    assert "run the same command again to go on" in output
    states = [folder.state() for folder in folders(tmp_path)]
    assert states == ["interrupted"] * 2, (reached, output)
    assert all(folder.checkpoint.exists() for folder in folders(tmp_path))
    again = start(tmp_path, "--lanes", "2", epochs=long)
    output, _ = again.communicate(timeout=WAIT)
    assert again.returncode == 0, output
    assert_equal(RunFolder(job.folder), RunFolder(tmp_path / "runs" / job.folder.name))


@pytest.mark.slow
def test_processes_take_trials_from_one_list_and_a_killed_one_costs_only_its_own(tmp_path):
    four = jobs(tmp_path, 4, "epochs=12")
    started = launch("local", four, 3, lanes=2)
    victim, killed, most = RunFolder(four[0].folder), 0, 0
    while started.poll():
        owner = victim.living_owner()
        most = max(most, sum(bool(folder.living_owner()) for folder in folders(tmp_path)))
        if owner and not killed and training(tmp_path) == 3:
            killed = owner["pid"]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    assert most == 3  # lanes: two of one process, one of the other
    lost = [folder for folder in folders(tmp_path) if folder.state() == "lost"]
    others = [folder for folder in folders(tmp_path) if folder.state() == "completed"]
    assert victim.state() == "lost" and len(lost) + len(others) == 4
    assert {folder.read_status()["pid"] for folder in lost} == {killed}
    assert len({folder.read_status()["pid"] for folder in others} - {killed}) == 1
    assert all(folder.read_status()["attempt"] == 1 for folder in [*lost, *others])


def test_trials_share_a_process_if_they_need_the_same_one(work):
    first, second, third, fourth = work
    assert sharing(work) == [work]
    threads, portable = replace(second, threads=2), replace(third, portable=True)
    assert sharing([first, threads, portable, fourth]) == [[first, fourth], [threads], [portable]]
    gpu = replace(second, resources=Resources(gpus=1))
    assert sharing([first, gpu]) == [[first], [gpu]]
    large = replace(second, resources=Resources(gpus=8))
    several = [replace(first, ranks=2), replace(second, branches=2), replace(third, compiled=True)]
    assert sharing([*several, large, fourth]) == [[fourth]]
    assert as_lanes([gpu, gpu]) and not as_lanes(work)
    assert not as_lanes([gpu, replace(gpu, threads=2)]) and not as_lanes([large])


def test_lanes_are_spread_over_processes():
    assert sizes(100, None, 2, None) == [None, None]  # each measures how many fit
    assert sizes(1, None, 2, None) == [None]
    assert sizes(100, 7, 2, None) == [4, 3]  # two GPUs
    assert sizes(100, 1, 2, None) == [1]
    assert sizes(100, None, 2, 4) == [4, 4]
    assert sizes(5, None, 2, 4) == [4, 1]
    assert sizes(100, 5, 2, 2) == [2, 2, 1]
    assert sizes(100, 2, 2, 8) == [2]


def test_trials_on_a_gpu_are_lanes_unless_the_user_says_otherwise(work):
    small = [replace(job, resources=Resources(gpus=1)) for job in work[:3]]
    large = replace(work[3], resources=Resources(gpus=8), ranks=8)
    alone = [Work((job,)) for job in (*small, large)]
    jobs = [*small, large]
    together = Work(tuple(small), None)
    assert list(works(jobs, None, 1, None, with_gpus=True)) == [together, Work((large,))]
    assert list(works(jobs, None, 1, 1, with_gpus=True)) == alone
    assert list(works(jobs, None, 2, None, with_gpus=False)) == alone
    both = [Work(tuple(small), 2), Work(tuple(small), 1), Work((large,))]
    assert list(works(jobs, 3, 2, None, with_gpus=True)) == both
    assert list(works(work, None, 2, None, with_gpus=True)) == [Work((job,)) for job in work]


def test_lanes_are_refused_where_there_are_none(tmp_path, capsys):
    words = ["run", str(FILE), "--scale", "smoke", "--executor", "debug", "--lanes", "2"]
    assert main([*words, "--results", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err == "gapbench: --lanes: the executor debug has no lanes: use local\n"
    )

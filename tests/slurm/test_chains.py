"""Trials that are several jobs: the rounds of P-GaP, and runs longer than the time limit."""

from __future__ import annotations

import os
import signal

import pytest

from gapbench.experiments.branches import branch_folder
from gapbench.experiments.marks import read_json
from gapbench.experiments.store import RunFolder
from gapbench.launch.jobs import Attempt, launch
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import jobs_of, look
from gapbench.run import _job, expanded
from tests.runs import ABLATIONS, assert_equal
from tests.slurm.cluster import wait_until

P_GAP = ["partitions=2", "epochs=10", "rounds=2", "step_epochs=2"]


def work(results, only, sets):
    file = ABLATIONS / "main.yaml"
    entries = expanded(file, "smoke", sets, only, "1")[2]
    return [_job(results, "main", entry, 1) for entry in entries]


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    (job,) = work(tmp_path_factory.mktemp("one"), ["p_gap"], P_GAP)
    assert Attempt(job)() == "completed"
    return RunFolder(job.folder)


def attempts(folder):
    return (read_json(folder.status) or {}).get("attempt", 0)


def test_rounds_of_p_gap_are_arrays_of_branches_and_merges(cluster, tmp_path, in_one_process):
    (job,) = work(tmp_path, ["p_gap"], P_GAP)
    started = launch("slurm", [job], None)
    folder = RunFolder(job.folder)
    ids = jobs_of(folder)
    bases = list(dict.fromkeys(name.partition("_")[0] for name in ids))
    branches = read_json(folder.plan)["segments"][0]["branches"]
    assert len(bases) == 5  # start, round, merge, round, merge
    assert len(ids) == 3 + 2 * branches
    seen = set()

    def ended():
        sight = look([folder], Queue(0))[0]
        seen.add((sight.state, sight.job))
        return not started.poll()

    wait_until(ended, 200, "the chain to end")
    assert folder.completed()
    assert {state for state, _ in seen} <= {"queued", "running", "completed"}
    assert {name for _, name in seen} & {i for i in ids if "_" in i}  # a branch's turn was seen
    assert attempts(folder) == 3
    assert_equal(folder, in_one_process)

    def states():
        jobs = f"--jobs={','.join(bases)}"
        return set(cluster.run("squeue", "-h", "--states=all", jobs, "--format=%T").split())

    wait_until(lambda: states() == {"COMPLETED"}, 30, "the last job's end")


def test_a_killed_branch_is_made_up_for_and_the_others_are_kept(cluster, tmp_path, in_one_process):
    (job,) = work(tmp_path, ["p_gap"], P_GAP)
    started = launch("slurm", [job], None)
    folder = RunFolder(job.folder)
    place = branch_folder(folder, 0, 1)
    wait_until(lambda: place.living_owner() is not None, 120, "branch 1 to begin")
    os.kill(place.living_owner()["pid"], signal.SIGKILL)
    wait_until(lambda: not started.poll(), 200, "the chain to end")
    assert folder.completed()
    assert attempts(folder) == 3
    assert_equal(folder, in_one_process)


def test_a_requeued_branch_goes_on_and_a_cancelled_chain_is_resumed(
    cluster, tmp_path, in_one_process
):
    (job,) = work(tmp_path, ["p_gap"], P_GAP)
    launch("slurm", [job], None)
    folder = RunFolder(job.folder)
    place = branch_folder(folder, 0, 0)
    wait_until(lambda: place.living_owner() is not None, 120, "branch 0 to begin")
    (branch,) = {i for i in jobs_of(folder) if i.endswith("_0")} & {
        place.living_owner()["slurm_job"]
    }
    cluster.run("scancel", "--signal=USR2", branch)

    def requeued():
        shown = cluster.run("scontrol", "--oneliner", "show", "job", branch)
        return " Restarts=1 " in shown

    wait_until(requeued, 60, "the requeue")
    cluster.run("scancel", *{name.partition("_")[0] for name in jobs_of(folder)})
    wait_until(lambda: look([folder], Queue(0))[0].state == "interrupted", 60, "the chain's end")
    again = launch("slurm", work(tmp_path, ["p_gap"], P_GAP), None)
    wait_until(lambda: not again.poll(), 200, "the second chain to end")
    assert_equal(folder, in_one_process)


def test_a_run_longer_than_the_limit_is_cut_at_its_steps(cluster, tmp_path):
    profile = tmp_path / "cluster.yaml"
    profile.write_text("hours: 0.4\n")  # the task asks for one hour
    (here,) = work(tmp_path / "one", ["partitions=2"], ["epochs=12"])
    assert Attempt(here)() == "completed"
    (job,) = work(tmp_path / "chain", ["partitions=2"], ["epochs=12"])
    started = launch("slurm", [job], None, profile=profile)
    folder = RunFolder(job.folder)
    assert len(jobs_of(folder)) == 3
    wait_until(lambda: not started.poll(), 200, "the chain to end")
    assert attempts(folder) == 3
    assert_equal(folder, RunFolder(here.folder))

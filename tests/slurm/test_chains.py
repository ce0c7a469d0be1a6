"""Trials that are several jobs: the rounds of P-GaP, and runs longer than the time limit."""

from __future__ import annotations

import os
import signal

import pytest

from gapbench.base.documents import read_json
from gapbench.execution.branches import RESULT, branch_folder
from gapbench.launch.jobs import Attempt, launch
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import jobs_of, look
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from tests.runs import ABLATIONS, assert_equal
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slurm

P_GAP = ["partitions=2", "epochs=10", "rounds=2", "step_epochs=2"]
ONE_ROUND = ["partitions=2", "epochs=9", "rounds=1", "step_epochs=2"]
C_GAP = ["epochs=12", "step_epochs=2"]
ONE_C_GAP = ["c_gap", "distribution=uniform", "pattern=unstructured"]


def work(results, only, sets):
    file = ABLATIONS / "main.yaml"
    entries = expanded(file, "smoke", sets, [*only], "1")[2]
    return [job_of(results, "main", entry, 1) for entry in entries]


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    (job,) = work(tmp_path_factory.mktemp("one"), ["p_gap"], P_GAP)
    assert Attempt(job)() == "completed"
    return RunFolder(job.folder)


def attempts(folder):
    return (read_json(folder.status) or {}).get("attempt", 0)


def test_rounds_of_p_gap_are_jobs_and_one_that_is_killed_is_made_up_for_alone(
    cluster, tmp_path, in_one_process
):
    (job,) = work(tmp_path, ["p_gap"], P_GAP)
    started = launch("slurm", [job], None)
    folder = RunFolder(job.folder)
    ids = jobs_of(folder)
    assert [name.partition("_")[2] for name in ids] == ["", "0", "1", "", "0", "1", ""]
    victim, other = (branch_folder(folder, 0, branch) for branch in (1, 0))
    wait_until(lambda: victim.living_owner() is not None, 120, "branch 1 to begin")
    assert look([folder], Queue(0))[0].state == "running"
    os.kill(victim.living_owner()["pid"], signal.SIGKILL)
    wait_until(lambda: (other.path / RESULT).exists(), 60, "branch 0 to be done")
    done = (other.path / RESULT).stat().st_mtime_ns
    wait_until(lambda: (victim.path / RESULT).exists(), 60, "branch 1 to be made up for")
    assert (other.path / RESULT).stat().st_mtime_ns == done
    wait_until(lambda: not started.poll(), 200, "the chain to end")
    assert attempts(folder) == 3  # the start, and two merges
    assert_equal(folder, in_one_process)

    def states():
        lines = cluster.run("squeue", "-h", "--array", "--states=all", "--format=%i|%T").split()
        known = dict(line.split("|") for line in lines)
        return [known[name] for name in ids]

    ends = ["COMPLETED", "COMPLETED", "FAILED", *["COMPLETED"] * 4]
    wait_until(lambda: states() == ends, 30, "the last job's end")


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
    (here,) = work(tmp_path / "one", ONE_C_GAP, C_GAP)
    assert Attempt(here)() == "completed"
    (job,) = work(tmp_path / "chain", ONE_C_GAP, C_GAP)
    profile.write_text(f"hours: {0.4 * job.resources.hours}\n")
    started = launch("slurm", [job], None, profile=profile)
    folder = RunFolder(job.folder)
    assert len(jobs_of(folder)) == 3
    wait_until(lambda: not started.poll(), 200, "the chain to end")
    assert attempts(folder) == 3
    assert_equal(folder, RunFolder(here.folder))


def test_a_trial_on_two_nodes_with_two_ranks_each(cluster, tmp_path):
    profile = tmp_path / "cluster.yaml"
    profile.write_text("nodes: 2\ntasks_per_node: 2\n")
    (job,) = work(
        tmp_path,
        ["rigl", "distribution=erk", "epochs=1x", "pattern=unstructured"],
        ["epochs=6", "every=5", "recipe.ranks=4"],
    )
    started = launch("slurm", [job], None, profile=profile)
    folder = RunFolder(job.folder)
    wait_until(lambda: not started.poll(), 200, "the trial to end")
    result = folder.read_result()
    assert result is not None, folder.error.read_text()
    assert result["ranks"] == 4
    # the masks' digests are compared over the ranks at each change; there were some
    assert folder.history.read_text().count('"event":"update"') > 3


def test_branches_of_several_ranks_give_the_bits_of_one_job_with_as_many(cluster, tmp_path):
    folders = []
    started = []
    for name, chain in (("chain", "true"), ("one", "false")):
        profile = tmp_path / f"{name}.yaml"
        profile.write_text(f"tasks_per_node: 2\nchain: {chain}\n")
        (job,) = work(tmp_path / name, ["p_gap"], [*ONE_ROUND, "recipe.ranks=2"])
        started.append(launch("slurm", [job], None, profile=profile))
        folders.append(RunFolder(job.folder))
    assert [len(jobs_of(folder)) for folder in folders] == [4, 1]
    for launched in started:
        wait_until(lambda launched=launched: not launched.poll(), 250, "the trial to end")
    assert all(folder.completed() for folder in folders), [f.state() for f in folders]
    assert_equal(*folders)

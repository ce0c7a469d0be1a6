"""What goes wrong on clusters: nothing is lost, nothing runs twice, and the bits stay the same."""

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
from gapbench.launch.jobs import Attempt, launch
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import jobs_of, look
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from tests.runs import ABLATIONS, assert_equal
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slurm

EPOCHS = "epochs=40"


def work(results, count=1):
    """Return jobs of trials that run for a while, as `gapbench run` makes them."""
    file = ABLATIONS / "partitions.yaml"
    entries = expanded(file, "smoke", [EPOCHS], ["partitions=2"], str(count))[2]
    return [job_of(results, "partitions", entry, 1) for entry in entries]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The trial of seed 0, run in one go in this process."""
    (job,) = work(tmp_path_factory.mktemp("undisturbed"))
    assert Attempt(job)() == "completed"
    return RunFolder(job.folder)


@pytest.fixture
def trial(cluster, tmp_path):
    """A trial that a job of the cluster is training."""
    (job,) = work(tmp_path)
    launch("slurm", [job], None)
    folder = RunFolder(job.folder)
    wait_until(lambda: trains(folder), 60, "the trial to train")
    return folder


def only_job(folder):
    (job,) = jobs_of(folder)
    return job


def epoch(folder):
    return (read_json(folder.status) or {}).get("epoch", 0)


def trains(folder):
    return bool(folder.living_owner()) and epoch(folder) > 0


def attempts(folder):
    return (read_json(folder.status) or {}).get("attempt", 0)


def seen(folder):
    return look([folder], Queue(0))[0]


def run_again(folder):
    """What the next `gapbench run` does for a trial, to its end."""
    started = launch("slurm", work(folder.path.parent.parent), None)
    wait_until(lambda: not started.poll(), 120, "the trial to end")


def completes(folder, seconds=120):
    wait_until(folder.completed, seconds, f"completion after {folder.state()}")


def test_slurms_warning_makes_a_trial_checkpoint_and_requeue_itself(cluster, trial, undisturbed):
    job = only_job(trial)
    cluster.run("scancel", "--signal=USR2", job)  # what #SBATCH --signal sends before the limit
    wait_until(lambda: seen(trial).state == "queued", 30, "the requeue")
    assert read_json(trial.status)["state"] == "interrupted"
    assert trial.checkpoint.exists()
    completes(trial)
    assert only_job(trial) == job
    assert attempts(trial) == 2
    assert_equal(trial, undisturbed)
    states = [read_json(trial.sacred / n / "run.json")["status"] for n in ("1", "2")]
    assert states == ["INTERRUPTED", "COMPLETED"]


def test_preemption_by_sigterm_alone_loses_nothing(cluster, trial, undisturbed):
    cluster.run("scancel", "--signal=TERM", only_job(trial))  # and SLURM kills at the grace's end
    completes(trial)
    assert attempts(trial) == 2
    assert_equal(trial, undisturbed)


def test_a_requeue_by_hand_runs_the_trial_once_more_from_its_checkpoint(
    cluster, trial, undisturbed
):
    cluster.run("scontrol", "requeue", only_job(trial))
    completes(trial)
    assert attempts(trial) == 2
    assert_equal(trial, undisturbed)


def test_a_cancelled_job_is_not_requeued_and_the_next_run_goes_on(cluster, trial, undisturbed):
    cluster.run("scancel", only_job(trial))
    wait_until(lambda: seen(trial).state == "interrupted", 30, "the job to end")
    time.sleep(3)
    assert seen(trial).state == "interrupted"
    run_again(trial)
    assert_equal(trial, undisturbed)


def test_a_killed_process_ends_its_job_and_the_next_run_goes_on(cluster, trial, undisturbed):
    os.kill(trial.living_owner()["pid"], signal.SIGKILL)
    wait_until(lambda: seen(trial).state == "lost", 30, "the job to end")
    assert "FAILED" in seen(trial).hint
    run_again(trial)
    assert attempts(trial) == 2
    assert_equal(trial, undisturbed)


def test_two_live_copies_of_a_trial_do_not_mix(cluster, trial, undisturbed):
    """A node's daemon dies, its processes live on, and SLURM starts the job on another node."""
    owner = trial.living_owner()
    (node,) = cluster.run("squeue", "--noheader", "--format=%N", "-j", only_job(trial)).split()
    cluster.kill(f"slurmd.{node}")
    try:
        os.kill(owner["pid"], signal.SIGSTOP)  # so that it is still there when the copy starts
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        wait_until(lambda: attempts(trial) == 2 and trains(trial), 60, "the second copy")
        assert trial.living_owner()["pid"] != owner["pid"]
        os.kill(owner["pid"], signal.SIGCONT)
        completes(trial)
        assert attempts(trial) == 2
        assert_equal(trial, undisturbed)
    finally:
        cluster.start_node(node)
        cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
    wait_until(lambda: node in idle_nodes(cluster), 60, "the node's return")


def idle_nodes(cluster):
    return cluster.run("sinfo", "--noheader", "-N", "--states=idle", "--format=%N").split()


def test_a_restart_of_the_controller_changes_nothing(cluster, trial, undisturbed):
    started = launch("slurm", work(trial.path.parent.parent), None)
    pid = trial.living_owner()["pid"]
    os.kill(pid, signal.SIGSTOP)  # commands wait ten seconds for a controller that is not there
    cluster.kill("slurmctld", signal.SIGTERM)  # it saves its state; the last seconds' is lost by -9
    try:
        found = seen(trial)
        assert (found.state, found.hint) == ("running", "SLURM does not answer")
        assert started.poll()  # silence does not end the following
    finally:
        cluster.start_controller()
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not started.poll(), 120, "the trial to end")
    assert attempts(trial) == 1
    assert_equal(trial, undisturbed)


def test_jobs_outlive_the_launcher_and_the_next_run_follows_them(cluster, tmp_path, undisturbed):
    command = ["run", str(ABLATIONS / "partitions.yaml"), "--scale", "smoke", "--set", EPOCHS]
    command += ["--only", "partitions=2"]
    command += ["--seeds", "1", "--executor", "slurm"]
    command += ["--results", str(tmp_path)]
    running = subprocess.Popen([sys.executable, "-m", "gapbench", *command], cwd=ABLATIONS.parent)
    (job,) = work(tmp_path)
    folder = RunFolder(job.folder)
    wait_until(lambda: trains(folder), 60, "the trial to train")
    running.kill()
    running.wait()
    before = only_job(folder)
    assert main(command) == 0
    assert only_job(folder) == before
    assert attempts(folder) == 1
    assert_equal(folder, undisturbed)


def test_a_time_limit_too_short_for_one_step_ends_in_a_message(cluster, tmp_path, monkeypatch):
    from gapbench.launch import attempts as jobs

    monkeypatch.setattr(jobs, "STALLS", 1)
    monkeypatch.setattr(jobs, "progress", lambda folder: None)
    (job,) = work(tmp_path)
    attempt = jobs.SlurmAttempt(job)
    folder = RunFolder(job.folder)
    attempt.stalls = 1
    assert not attempt._wanted_again(folder)
    assert folder.state() == "failed"
    assert "give more hours" in read_json(folder.status)["error"]


def test_a_full_results_folder_fails_trials_and_they_go_on_when_there_is_room(
    cluster, tmp_path, undisturbed
):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        (job,) = work(disk)
        folder = RunFolder(job.folder)
        started = launch("slurm", [job], None)
        wait_until(lambda: trains(folder), 60, "the trial to train")
        _fill(disk / "ballast")
        wait_until(lambda: not started.poll(), 120, "the trial to end")
        assert not folder.completed()
        (disk / "ballast").unlink()
        run_again(folder)
        assert_equal(folder, undisturbed)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as ballast:
        size = 1 << 20
        while size:
            try:
                ballast.write(bytes(size))
            except OSError:
                size //= 2

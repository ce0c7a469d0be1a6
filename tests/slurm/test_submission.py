"""Ablations on a real cluster: submitted once, throttled, refused in one line, equal bitwise."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from gapbench.__main__ import main
from gapbench.base.documents import read_json
from gapbench.errors import UserError
from gapbench.launch import queue
from gapbench.launch.jobs import Attempt, Job, launch
from gapbench.launch.queue import Queue, most_in_array
from gapbench.launch.submissions import jobs_of, look
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from gapbench.tasks.task import Resources
from tests.report.folders import write_run
from tests.runs import ABLATIONS, assert_equal
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slurm

FILE = ABLATIONS / "partitions.yaml"
RUN = ["run", str(FILE), "--scale", "smoke", "--executor", "slurm"]


def only_job(folder):
    (job,) = jobs_of(folder)
    return job


def run(results, *options):
    return main([*RUN, "--results", str(results), *map(str, options)])


def jobs(results, *sets, only="partitions=2", seeds=1):
    entries = expanded(FILE, "smoke", sets, [only], str(seeds))[2]
    return [job_of(results, "partitions", entry, 1) for entry in entries]


def empty_jobs(results, count):
    """Return jobs whose run folders hold no trial that could be run."""
    made = []
    for number in range(count):
        folder = RunFolder(results / "runs" / f"{number:016x}")
        folder.prepare({"key": folder.path.name})
        made.append(Job(folder.path, "many", f"trial {number}", Resources(memory_gb=0.1)))
    return made


def listing(cluster, form="%i|%T"):
    return cluster.run("squeue", "--noheader", "--array", "--states=all", f"--format={form}")


def submissions(cluster):
    """Return the ids of all jobs and arrays that the cluster knows."""
    return set(listing(cluster, "%F").split())


def test_an_ablation_on_slurm_gives_the_bits_of_this_process(cluster, tmp_path, capsys):
    before = submissions(cluster)
    assert run(tmp_path, "--only", "partitions=1,2", "--seeds", "1") == 0
    out = capsys.readouterr().out
    assert "executor slurm" in out
    assert "C-GaP" in out
    assert len(submissions(cluster) - before) == 1  # one array
    for job in jobs(tmp_path, only="partitions=1,2"):
        folder = RunFolder(job.folder)
        assert folder.completed()
        assert read_json(folder.status)["slurm_job"] == only_job(folder)
        there = RunFolder(tmp_path / "here" / "runs" / folder.path.name)
        there.prepare(read_json(folder.trial))
        assert Attempt(Job(there.path, "partitions", "", Resources()))() == "completed"
        assert_equal(folder, there)
    assert run(tmp_path, "--only", "partitions=1,2", "--seeds", "1") == 0
    assert "2 done, 0 to run" in capsys.readouterr().out
    assert len(submissions(cluster) - before) == 1


def test_a_look_at_open_claims_is_submitted_once_and_only_where_it_is_asked_for(
    cluster, tmp_path, capsys
):
    for entry in expanded(FILE, "smoke", (), ["partitions=1,4"], "5")[2]:
        better = 20.0 * (entry.trial.options["partitions"] == 4)
        write_run(tmp_path, entry.trial, 70.0 + better + entry.trial.seed / 10)
    before = submissions(cluster)
    for told in ("2 trials, 0 done, 2 to run", "Do four partitions beat one?"):
        assert run(tmp_path, "--only", "partitions=1,4", "--until-resolved", "--max-seeds", 6) == 0
        assert told in capsys.readouterr().out
        assert len(submissions(cluster) - before) == 1


def test_five_hundred_trials_are_one_array_in_under_ten_seconds(cluster, tmp_path):
    work = empty_jobs(tmp_path, 500)
    before = submissions(cluster)
    began = time.monotonic()
    started = launch("slurm", work, 3)
    assert time.monotonic() - began < 10
    (array,) = submissions(cluster) - before
    cluster.run("scancel", array)
    assert only_job(RunFolder(work[-1].folder)) == f"{array}_499"
    script = (tmp_path / "slurm").glob("*/*_submission.sh")
    assert "--array=0-499%3" in next(script).read_text()
    wait_until(lambda: not started.poll(), 60, "the array to end")


def test_more_trials_than_an_array_holds_are_several_arrays(cluster, tmp_path, monkeypatch):
    assert most_in_array() == 1001  # of this cluster
    monkeypatch.setattr(queue, "most_in_array", lambda: 2)
    work = empty_jobs(tmp_path, 5)
    before = submissions(cluster)
    started = launch("slurm", work, None)
    made = submissions(cluster) - before
    assert len(made) == 3
    ids = [only_job(RunFolder(job.folder)) for job in work]
    assert [name.partition("_")[2] for name in ids] == ["0", "1", "0", "1", ""]
    cluster.run("scancel", *made)
    wait_until(lambda: not started.poll(), 60, "the arrays to end")


@pytest.mark.parametrize("letter", ["%", "\\"])
def test_a_path_that_slurm_would_read_as_a_pattern_is_refused(cluster, tmp_path, letter):
    before = submissions(cluster)
    with pytest.raises(UserError, match="--results"):
        launch("slurm", empty_jobs(tmp_path / f"a{letter}j", 1), None)
    assert submissions(cluster) == before


def test_a_run_ends_with_the_last_words_of_a_job_that_could_not_begin(cluster, tmp_path, capsys):
    profile = tmp_path / "cluster.yaml"
    profile.write_text("setup: [echo no such module >&2, exit 7]\n")
    assert run(tmp_path, "--only", "partitions=2", "--seeds", "1", "--profile", profile) == 1
    told = capsys.readouterr().out
    assert "SLURM says FAILED" in told and "no such module" in told
    assert "no error was recorded" not in told


def test_jobs_ask_for_what_the_task_and_the_profile_say(cluster, tmp_path):
    profile = tmp_path / "cluster.yaml"
    profile.write_text(
        "partition: main\ncpus: 2\nmemory_gb: 0.5\nhours: 3\nwarning_seconds: 60\n"
        f"setup: [export GAPBENCH_TEST=1, 'echo $GAPBENCH_TEST > {tmp_path}/setup']\n"
        "sbatch: {nice: 7}\n"
    )
    (job,) = empty_jobs(tmp_path, 1)
    started = launch("slurm", [job], None, profile=profile)
    shown = cluster.run("scontrol", "--oneliner", "show", "job", only_job(RunFolder(job.folder)))
    for part in (
        "Partition=main",
        "TimeLimit=03:00:00",
        "Account=(null)",
        "NumCPUs=2",
        "Nice=7",
        "Requeue=1",
    ):
        assert f" {part} " in shown, part
    assert "MinMemoryNode=512M" in shown
    assert "JobName=many" in shown
    wait_until(lambda: not started.poll(), 60, "the job to end")
    assert (tmp_path / "setup").read_text() == "1\n"


def test_a_failed_trial_is_a_failed_job(cluster, tmp_path):
    (job,) = empty_jobs(tmp_path, 1)
    started = launch("slurm", [job], None)
    wait_until(lambda: not started.poll(), 60, "the job to end")
    folder = RunFolder(job.folder)
    assert folder.state() == "failed"
    wait_until(lambda: f"{only_job(folder)}|FAILED" in listing(cluster), 20, "SLURM to notice")


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("partition: nope", "Invalid partition name specified"),
        ("memory_gb: 90000", "Requested node configuration is not available"),
        ("gpus: 1", "Invalid generic resource"),
        ("constraint: fast", "Invalid feature specification"),
        ("{partition: short, hours: 2}", "PartitionTimeLimit"),
        ("nodes: 9", "9 nodes with 1 processes each for a trial of 1"),
        ("sbatch: {nonsense: 1}", "unrecognized option '--nonsense=1'"),
        ("partitoin: main", "did you mean 'partition'"),
    ],
)
def test_what_slurm_refuses_is_one_line_and_nothing_stays_submitted(
    cluster, tmp_path, capsys, profile, message
):
    file = tmp_path / "cluster.yaml"
    file.write_text(profile)
    chosen = ["--only", "partitions=2", "--seeds", "2", "--profile", str(file)]
    assert run(tmp_path, *chosen) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    waiting = [line for line in listing(cluster).splitlines() if "PENDING" in line]
    assert not waiting
    seen = look([RunFolder(path) for path in (tmp_path / "runs").glob("*")], Queue(0))
    assert {one.state for one in seen} <= {"planned"}


def test_a_later_array_that_is_refused_takes_the_earlier_ones_back(cluster, tmp_path):
    good, bad = empty_jobs(tmp_path, 2)
    impossible = Job(bad.folder, bad.ablation, bad.label, Resources(memory_gb=90000))
    before = submissions(cluster)
    with pytest.raises(UserError, match="configuration is not available"):
        launch("slurm", [good, impossible], None)
    made = submissions(cluster) - before

    def ends():
        lines = (line.split("|") for line in listing(cluster).splitlines())
        return sorted(state for job, state in lines if job in made)

    # SLURM keeps a record of what it refuses too
    wait_until(lambda: ends() == ["CANCELLED", "FAILED"], 20, "the first array's end")
    assert not RunFolder(bad.folder).submitted.exists()


def test_a_cluster_that_is_down_is_one_line(cluster, tmp_path, capsys):
    cluster.kill("slurmctld")
    try:
        assert run(tmp_path, "--only", "partitions=2", "--seeds", "1") == 2
    finally:
        cluster.start_controller()
    err = capsys.readouterr().err
    assert err == (
        "gapbench: SLURM refuses: Batch job submission failed: "
        "Unable to contact slurm controller (connect failure): "
        "change the profile, or use --executor local\n"
    )
    (folder,) = (RunFolder(path) for path in (tmp_path / "runs").glob("*"))
    assert not folder.submitted.exists()


def test_two_launchers_at_once_run_each_trial_once(cluster, tmp_path):
    command = [sys.executable, "-m", "gapbench", *RUN, "--results", str(tmp_path)]
    command += ["--only", "partitions=1,2", "--seeds", "1"]
    both = [
        subprocess.Popen(command, cwd=ABLATIONS.parent, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    made = [RunFolder(path) for path in (tmp_path / "runs").glob("*")]
    assert len(made) == 2
    for folder in made:
        assert [p.name for p in folder.sacred.iterdir() if p.name.isdigit()] == ["1"]


def test_detached_trials_are_followed_and_cancelled_from_another_shell(cluster, tmp_path, capsys):
    where = ["--results", str(tmp_path)]
    long = ["--only", "partitions=2", "--seeds", "2", "--set", "epochs=20000", "--jobs", "1"]
    assert run(tmp_path, *long, "--detach") == 0
    assert "gapbench status --watch" in capsys.readouterr().out

    def seen():
        assert main(["status", "--json", *where]) == 0
        return sorted(json.loads(capsys.readouterr().out), key=lambda view: view["state"])

    wait_until(lambda: [v["state"] for v in seen()] == ["queued", "running"], 60, "the first")
    queued, running = seen()
    array = queued["job"].partition("_")[0]
    assert queued["hint"] == "PENDING: JobArrayTaskLimit"
    assert running["hint"] == "RUNNING"
    assert main(["status", *where]) == 0
    assert running["job"] in capsys.readouterr().out

    def state_of(key):
        (state,) = (view["state"] for view in seen() if view["key"] == key)
        assert state in ("running", "queued", "interrupted")
        return state

    def logs():
        assert main(["logs", running["key"], *where]) == 0
        return capsys.readouterr().out

    wait_until(lambda: "Started run with ID" in logs(), 60, "the trial to begin")
    assert run(tmp_path, *long, "--detach") == 0  # nothing is submitted twice
    capsys.readouterr()
    assert [view["job"] for view in seen()] == [queued["job"], running["job"]]
    capsys.readouterr()

    assert main(["cancel", running["key"], *where]) == 0
    assert capsys.readouterr().out == f"asked to stop: {running['key']}\n"
    wait_until(lambda: state_of(running["key"]) == "interrupted", 60, "the first to stop")
    assert main(["cancel", *where]) == 0
    capsys.readouterr()

    def stopped():
        states = {view["state"] for view in seen()}
        left = cluster.run("squeue", "-h", f"--jobs={array}", check=False).strip()
        return states <= {"interrupted", "planned"} and not left

    wait_until(stopped, 60, "both to stop")
    assert main(["cancel", *where]) == 0
    assert "nothing is running" in capsys.readouterr().out


def test_a_run_right_after_a_cancel_trains_everything(cluster, tmp_path, capsys):
    profile = tmp_path / "cluster.yaml"
    # what ignores SIGTERM keeps the cancelled job COMPLETING until SLURM kills it
    profile.write_text("setup: (trap '' TERM; exec sleep 600) &\nparallel: 1\n")
    some = ["--only", "partitions=2", "--seeds", "2", "--set", "epochs=40", "--profile", profile]
    assert run(tmp_path, *some, "--detach") == 0
    folders = [RunFolder(path) for path in (tmp_path / "runs").glob("*")]
    wait_until(lambda: any(folder.living_owner() for folder in folders), 60, "a trial to run")
    assert main(["cancel", "--results", str(tmp_path)]) == 0
    words = dict(line.split("|") for line in listing(cluster).split())
    assert {words[only_job(folder)] for folder in folders} == {"COMPLETING", "CANCELLED"}
    capsys.readouterr()
    assert run(tmp_path, *some) == 0
    assert "waiting for jobs or processes that are about to end" in capsys.readouterr().out
    assert all(folder.completed() for folder in folders)

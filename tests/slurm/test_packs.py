"""Packs on a real cluster: one job, several trials, each as it would be alone."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import replace

import pytest

from gapbench.__main__ import main
from gapbench.base.documents import read_json
from gapbench.launch.jobs import Attempt, Job, launch
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import jobs_of, look
from gapbench.runs.store import RunFolder
from gapbench.spec.selection import expanded
from gapbench.study import job_of
from tests.report.folders import write_run
from tests.runs import ABLATIONS, assert_equal
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slurm

FILE = ABLATIONS / "partitions.yaml"
ONLY = "partitions=2"


def work(results, epochs, count):
    """Return jobs of trials that are expected to take a minute each."""
    entries = expanded(FILE, "smoke", [f"epochs={epochs}"], [ONLY], str(count))[2]
    made = (job_of(results, "partitions", entry, 1) for entry in entries)
    return [replace(job, seconds=60.0) for job in made]


def broken(job, number):
    """Return a job beside another whose run folder holds no trial that could be run."""
    folder = RunFolder(job.folder.with_name(f"{number:016x}"))
    folder.prepare({"key": folder.path.name})
    return replace(job, folder=folder.path, label="broken")


def folders(work):
    return [RunFolder(job.folder) for job in work]


def profile(tmp_path, text):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    return file


def trains(folder):
    return bool(folder.living_owner()) and (folder.read_status().get("epoch") or 0) > 0


def attempts(folder):
    return folder.read_status().get("attempt", 0)


def states(*some):
    return [seen.state for seen in look(some, Queue(0))]


def listed(cluster, array):
    form = "--format=%T"
    return cluster.run("squeue", "-h", "--array", "--states=all", f"--jobs={array}", form).split()


def submissions(cluster):
    return set(cluster.run("squeue", "-h", "--states=all", "--format=%F").split())


def assert_as_alone(results, *jobs):
    for job in jobs:
        there = RunFolder(results / "runs" / job.folder.name)
        there.prepare(read_json(RunFolder(job.folder).trial))
        assert Attempt(Job(there.path, "partitions", "", job.resources))() == "completed"
        assert_equal(RunFolder(job.folder), there)


def test_trials_of_a_pack_fail_go_on_and_are_cancelled_one_by_one(cluster, tmp_path, capsys):
    short, long = work(tmp_path, 6, 2), work(tmp_path, 40, 2)
    pack = [short[0], broken(short[0], 1), *long, short[1]]
    first, bad, requeued, cancelled, last = folders(pack)
    text = profile(tmp_path, "hours: 1\npack_minutes: 10\n")
    before = submissions(cluster)
    started = launch("slurm", pack, None, profile=text)
    assert started.told == "5 trials as 1 job"
    (job,) = submissions(cluster) - before
    assert [jobs_of(folder) for folder in folders(pack)] == [[job]] * 5
    again = launch("slurm", [*pack[2:], pack[0]], None, profile=text)
    assert (again.told, submissions(cluster) - before) == ("", {job})

    wait_until(lambda: trains(requeued), 240, "the third to train")
    assert first.completed()
    assert states(bad, requeued, cancelled, last) == ["failed", "running", "queued", "queued"]
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: trains(cancelled), 240, "the fourth to train after the requeue")
    assert [attempts(folder) for folder in (first, bad, requeued)] == [1, 1, 2]
    assert main(["cancel", cancelled.path.name, "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"asked to stop: {cancelled.path.name}\n"
    wait_until(lambda: not started.poll(), 240, "the last to end")
    assert states(first, bad, requeued, cancelled, last) == [
        *("completed", "failed", "completed", "interrupted", "completed")
    ]
    wait_until(lambda: listed(cluster, job) == ["FAILED"], 30, "SLURM to learn of the failure")
    assert_as_alone(tmp_path / "alone", long[0], short[1])


def test_two_trials_side_by_side_stop_at_slurms_warning_and_go_on(cluster, tmp_path):
    pair = work(tmp_path, 40, 2)
    text = profile(tmp_path, "hours: 1\npack_minutes: 5\ncpus: 2\nmemory_gb: null\n")
    started = launch("slurm", pair, None, profile=text)
    one, other = folders(pair)
    wait_until(lambda: trains(one) and trains(other), 240, "both to train")
    (job,) = jobs_of(one)
    assert jobs_of(other) == [job]
    cluster.run("scancel", "--signal=USR2", job)
    wait_until(lambda: states(one, other) == ["queued", "queued"], 60, "the requeue")
    assert one.checkpoint.exists() and other.checkpoint.exists()
    wait_until(lambda: not started.poll(), 240, "both to end")
    assert [attempts(folder) for folder in (one, other)] == [2, 2]
    wait_until(lambda: listed(cluster, job) == ["COMPLETED"], 30, "the job to end")
    assert_as_alone(tmp_path / "alone", pair[1])


def test_a_pack_that_waits_is_submitted_once_and_left_trial_by_trial(
    cluster, tmp_path, monkeypatch, capsys
):
    for entry in expanded(FILE, "smoke", (), [ONLY], "1")[2]:
        write_run(tmp_path, entry.trial, 80.0)
    text = profile(tmp_path, "hours: 1\npack_minutes: 10\nsbatch: {begin: now+1hour}\n")
    command = ["run", str(FILE), "--scale", "smoke", "--only", ONLY, "--seeds", "4"]
    command += ["--results", str(tmp_path), "--executor", "slurm", "--profile", str(text)]
    assert main([*command, "--dry-run"]) == 0
    assert "SLURM gets 3 trials as 1 job.\n" in capsys.readouterr().out
    before = submissions(cluster)
    assert main([*command, "--detach"]) == 0
    assert "submitted 3 trials as 1 job\n" in capsys.readouterr().out
    (job,) = submissions(cluster) - before

    # a job that is preempted may be seen as such before it waits again
    squeue, word = shutil.which("squeue"), tmp_path / "word"
    shown = tmp_path / "bin" / "squeue"
    shown.parent.mkdir()
    shown.write_text(f'#!/bin/sh\n{squeue} "$@" | sed "s/|PENDING|/|$(cat {word})|/"\n')
    shown.chmod(shown.stat().st_mode | stat.S_IXUSR)
    path = cluster.env["PATH"]
    monkeypatch.setenv("PATH", f"{shown.parent}:{path}")
    for state in ("PREEMPTED", "PENDING"):
        word.write_text(state)
        assert main([*command, "--detach"]) == 0
        assert "submitted" not in capsys.readouterr().out
        assert submissions(cluster) - before == {job}
    monkeypatch.setenv("PATH", path)

    where = ["--results", str(tmp_path)]

    def seen():
        assert main(["status", "--json", *where]) == 0
        views = json.loads(capsys.readouterr().out)
        return {view["key"]: view["state"] for view in views if view["state"] != "completed"}

    keys = sorted(seen())
    assert set(seen().values()) == {"queued"}
    assert main(["cancel", keys[0], *where]) == 0
    assert listed(cluster, job) == ["PENDING"]
    capsys.readouterr()
    assert seen() == {keys[0]: "planned", keys[1]: "queued", keys[2]: "queued"}
    assert main(["cancel", *keys[1:], *where]) == 0
    wait_until(lambda: listed(cluster, job) == ["CANCELLED"], 20, "the job to be cancelled")
    capsys.readouterr()
    assert set(seen().values()) == {"planned"}

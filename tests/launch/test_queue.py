"""What squeue says is read with care: silence means nothing, unknown words are not final."""

from __future__ import annotations

import stat

import pytest

from gapbench.cli.doctor import checks
from gapbench.launch import queue
from gapbench.launch.queue import Queue, SlurmError

PENDING = ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED"]
PENDING += ["PREEMPTED"]  # and perhaps requeued
RUNNING = ["RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED"]
FINAL = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that puts a program of SLURM's first in the path."""

    def install(name, text="", error="", code=0):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\nenv | grep -c SQUEUE_ > {tmp_path}/filters\n"
            f"echo x >> {tmp_path}/{name}.calls\n"
            f"cat <<'END'\n{text}\nEND\ncat >&2 <<'END'\n{error}\nEND\nexit {code}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path

    return install


@pytest.mark.parametrize("state", [*PENDING, *RUNNING, "A_STATE_OF_SLURM_99"])
def test_a_job_lives_until_its_state_is_final(fake, state):
    fake("squeue", f"12_3|{state}|None")
    assert queue.listed(["12"])["12_3"].lives


@pytest.mark.parametrize("state", FINAL)
def test_a_job_in_a_final_state_does_not_live(fake, state):
    fake("squeue", f"12|{state}|None")
    assert not queue.listed(["12"])["12"].lives


def test_no_answer_is_not_an_empty_answer(fake, monkeypatch):
    fake("squeue", error="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert queue.listed(["12"]) is None
    monkeypatch.setenv("PATH", "/nonexistent")
    assert queue.listed(["12"]) is None


def test_jobs_that_slurm_has_forgotten_are_an_answer(fake):
    fake("squeue", error="slurm_load_jobs error: Invalid job id specified", code=1)
    assert queue.listed(["12"]) == {}


def test_ids_of_a_throttled_array_other_lines_and_noise_do_no_harm(fake):
    lines = ["12_[3-9%4]|PENDING|JobArrayTaskLimit", "12_0|RUNNING|None", "garbage", "", "99|x|y|z"]
    fake("squeue", "\n".join(lines), error="squeue: warning: something")
    answer = queue.listed(["12"])
    assert answer["12_0"].state == "RUNNING"
    assert "12_3" not in answer


def test_reasons_are_told_without_brackets(fake):
    fake("squeue", "12|PENDING|(Resources)\n13|RUNNING|None")
    answer = queue.listed(["12", "13"])
    assert answer["12"].hint == "PENDING: Resources"
    assert answer["13"].hint == "RUNNING"


def test_filters_that_the_user_has_set_for_squeue_are_not_passed_on(fake, monkeypatch):
    folder = fake("squeue", "12|RUNNING|None")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    queue.listed(["12"])
    assert (folder / "filters").read_text().strip() == "0"


def test_one_question_serves_all_tasks_of_an_array_for_a_while(fake):
    folder = fake("squeue", "\n".join(f"12_{n}|RUNNING|None" for n in range(50)))
    asked = Queue(seconds=60)
    for number in range(50):
        assert asked.ask([f"12_{number}"])[f"12_{number}"].lives
    assert (folder / "squeue.calls").read_text().count("x") == 1


def test_nothing_is_asked_about_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Queue().ask([]) == {}


def test_slurms_reason_is_one_line_without_program_names():
    text = (
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )
    assert queue.reason(text) == (
        "invalid partition specified: nope; "
        "Batch job submission failed: Invalid partition name specified"
    )
    assert queue.reason("sbatch: fatal: Could not establish a configuration source") == (
        "Could not establish a configuration source"
    )
    assert queue.reason("sbatch: error: twice\nsbatch: error: twice\n") == "twice"


def test_a_command_that_fails_raises_with_its_reason(fake):
    fake("scancel", error="scancel: error: Kill job error on job id 5: Access denied", code=1)
    with pytest.raises(SlurmError, match="Kill job error on job id 5"):
        queue.cancel(["5"])


def test_sbatch_without_a_cluster_is_no_cluster(fake, monkeypatch):
    fake("sbatch")
    fake("scontrol", error="scontrol: fatal: Could not establish a configuration source", code=1)
    assert queue.usable() == (False, "sbatch found, but no cluster is configured")
    fake("scontrol", error="scontrol: error: Unable to contact slurm controller", code=1)
    assert queue.usable()[0]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert queue.usable() == (False, "no sbatch on this machine")


def test_the_doctor_says_where_jobs_cannot_requeue_themselves(fake, tmp_path, monkeypatch):
    fake("sbatch")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in checks(tmp_path)}
    assert (found["slurm"].state, found["scontrol"].state) == ("fine", "missing")
    assert "requeue" in found["scontrol"].detail
    fake("scontrol")
    assert "scontrol" not in {check.name for check in checks(tmp_path)}

"""Claims on trials, and the states that follow from run folders and SLURM's word together."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from gapbench.base.documents import read_json, write_json
from gapbench.launch.queue import Listed, Queue
from gapbench.launch.submissions import Submission, jobs_of, leave, log_of, look
from gapbench.runs.store import LOST_AFTER, RunFolder


class Answers:
    """SLURM's word, as a test wants it."""

    def __init__(self, **states):
        self.states = states

    def ask(self, jobs):
        if self.states.get("silent"):
            return None
        return {
            name.removeprefix("j"): Listed(name.removeprefix("j"), state)
            for name, state in self.states.items()
        }


@pytest.fixture
def folders(tmp_path):
    made = [RunFolder(tmp_path / "runs" / f"{number:016x}") for number in range(3)]
    for folder in made:
        folder.prepare({"key": folder.path.name})
    return made


@pytest.fixture
def submitted(folders, tmp_path):
    """Three trials that were submitted as array 12."""
    submission = Submission(tmp_path)
    assert submission.claim(folders, Answers()) == folders
    submission.folder.mkdir(parents=True)
    submission.submitted("12", 3)
    return submission


def state_of(folder, **answers):
    (seen,) = look([folder], Answers(**answers))
    return seen.state


def test_a_claim_leads_to_the_task_of_the_array(folders, submitted):
    assert [jobs_of(folder) for folder in folders] == [["12_0"], ["12_1"], ["12_2"]]
    log = submitted.folder / "12_1_0_log.out"
    assert log_of(folders[1]) is None
    log.write_text("hello")
    assert log_of(folders[1]) == log


def test_an_array_of_one_is_a_plain_job(folders, tmp_path):
    submission = Submission(tmp_path)
    submission.claim(folders[:1], Answers())
    submission.folder.mkdir(parents=True)
    submission.submitted("7", 1)
    assert jobs_of(folders[0]) == ["7"]
    assert jobs_of(folders[1]) == []


@pytest.mark.parametrize("word", ["PENDING", "CONFIGURING", "REQUEUED", "COMPLETING", "RUNNING"])
def test_a_trial_whose_job_lives_is_not_submitted_again(folders, submitted, tmp_path, word):
    assert Submission(tmp_path).claim([folders[1]], Answers(j12_1=word)) == []
    assert state_of(folders[1], j12_1=word) == "queued"


@pytest.mark.parametrize("answers", [{}, {"j12_1": "CANCELLED"}, {"j12_1": "NODE_FAIL"}])
def test_a_trial_whose_job_is_over_or_forgotten_is(folders, submitted, tmp_path, answers):
    assert state_of(folders[1], **answers) == "planned"
    later = Submission(tmp_path)
    assert later.claim([folders[1]], Answers(**answers)) == [folders[1]]
    assert read_json(folders[1].submitted)["submission"] == later.name


def test_silence_means_nothing(folders, submitted, tmp_path):
    assert Submission(tmp_path).claim([folders[0]], Answers(silent=True)) == []
    assert state_of(folders[0], silent=True) == "queued"


def test_a_launcher_that_is_about_to_submit_keeps_its_claims_while_it_lives(folders, tmp_path):
    Submission(tmp_path).claim(folders[:1], Answers())
    assert state_of(folders[0]) == "queued"
    assert Submission(tmp_path).claim(folders[:1], Answers()) == []
    claim = json.loads(folders[0].submitted.read_text())
    write_json(folders[0].submitted, {**claim, "pid": 2**22 + 1})
    assert state_of(folders[0]) == "planned"
    write_json(folders[0].submitted, {**claim, "host": socket.gethostname() + "-other"})
    assert state_of(folders[0]) == "queued"
    old = time.time() - LOST_AFTER - 1
    write_json(folders[0].submitted, {**claim, "host": socket.gethostname() + "-other", "at": old})
    assert state_of(folders[0]) == "planned"
    assert Submission(tmp_path).claim(folders[:1], Answers()) == folders[:1]


def test_indices_are_those_of_the_trials_that_were_claimed(folders, submitted, tmp_path):
    later = Submission(tmp_path)
    assert later.claim(folders, Answers(j12_1="RUNNING")) == [folders[0], folders[2]]
    assert [read_json(folders[n].submitted)["index"] for n in (0, 2)] == [0, 1]


def test_claims_are_withdrawn_but_not_those_of_others(folders, submitted, tmp_path):
    later = Submission(tmp_path)
    later.claim([folders[0]], Answers())
    later.withdraw(folders)
    assert not folders[0].submitted.exists()
    assert folders[1].submitted.exists()


def test_an_interrupted_trial_that_slurm_requeued_is_queued(folders, submitted):
    folder = folders[0]
    folder.begin_attempt()
    folder.end_attempt("interrupted")
    assert state_of(folder, j12_0="PENDING") == "queued"
    assert state_of(folder) == "interrupted"
    assert state_of(folder, silent=True) == "interrupted"


def test_a_cancelled_trial_is_interrupted_once_its_job_has_ended(folders, submitted):
    folder = folders[0]
    folder.begin_attempt()
    folder.cancel()
    assert state_of(folder, j12_0="RUNNING") == "queued"  # still to notice
    assert state_of(folder, j12_0="COMPLETING") == "queued"
    assert state_of(folder, j12_0="CANCELLED") == "interrupted"
    assert state_of(folder) == "interrupted"


def ending(folder, **answers):
    (seen,) = look([folder], Answers(**answers))
    return seen.ending


@pytest.mark.parametrize("state", ["planned", "interrupted", "failed", "lost"])
def test_a_trial_is_claimed_anew_as_soon_as_it_is_neither_going_on_nor_ending(
    folders, submitted, tmp_path, state
):
    folder = folders[0]
    if state != "planned":
        folder.begin_attempt()
    if state in ("interrupted", "failed"):
        folder.end_attempt(state)
    for word in ("PENDING", "RUNNING", "COMPLETING", "CANCELLED"):
        (seen,) = look([folder], Answers(j12_0=word))
        assert seen.ending or word != "COMPLETING"
        free = seen.state not in ("running", "queued") and not seen.ending
        assert free == (word == "CANCELLED")
        claimed = Submission(tmp_path).claim([folder], Answers(j12_0=word))
        assert claimed == ([folder] if free else [])


def test_a_trial_that_was_asked_to_stop_is_ending_while_its_process_lives(folders):
    folder = folders[0]
    with folder.owned():
        assert not ending(folder)
        folder.cancel()
        assert ending(folder)
    assert not ending(folder)


def test_a_completed_trial_and_a_failed_one_of_a_pack_are_not_waited_for(folders, packed):
    one, other, alone = folders
    one.begin_attempt()
    one.end_attempt("failed", "boom")
    other.complete({"key": other.path.name})
    assert not ending(one, j12_0="COMPLETING")
    assert not ending(other, j12_0="COMPLETING")
    assert ending(alone, j12_1="COMPLETING")
    assert not ending(alone, silent=True)


def test_a_failed_trial_stays_failed_while_its_job_ends_and_is_queued_when_retried(
    folders, submitted, tmp_path
):
    folder = folders[0]
    folder.begin_attempt()
    folder.end_attempt("failed", "boom")
    assert state_of(folder, j12_0="COMPLETING") == "failed"
    assert state_of(folder, j12_0="FAILED") == "failed"
    later = Submission(tmp_path)
    later.claim([folder], Answers())
    later.folder.mkdir(parents=True)
    later.submitted("13", 1)
    assert state_of(folder, j13="PENDING") == "queued"


def test_slurms_word_never_makes_a_failure(folders, submitted):
    for word in ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"):
        (seen,) = look([folders[0]], Answers(j12_0=word))
        assert seen.state == "planned"
        assert seen.hint == word


def test_a_silent_run_on_a_node_whose_job_runs_is_running(folders, submitted):
    folder = folders[0]
    mark = {"token": "t", "host": "elsewhere", "pid": 1, "began": "1", "slurm_job": "12_0"}
    write_json(folder.owner, mark)
    past = time.time() - LOST_AFTER - 1
    os.utime(folder.owner, (past, past))
    assert folder.state() == "lost"
    (seen,) = look([folder], Answers(j12_0="RUNNING"))
    assert seen.state == "running"
    assert "no sign of life" in seen.hint
    assert state_of(folder, j12_0="NODE_FAIL") == "lost"


def test_a_completed_trial_is_completed_whatever_slurm_says(folders, submitted):
    folders[0].complete({"key": folders[0].path.name})
    assert state_of(folders[0], j12_0="RUNNING") == "completed"


@pytest.mark.parametrize("text", ['{"submission": 3}', "[]", '{"submission": "x"}', "{"])
def test_a_damaged_claim_is_none(tmp_path, text):
    folder = RunFolder(tmp_path / "runs" / "0123456789abcdef")
    folder.prepare({})
    folder.submitted.write_text(text)
    (seen,) = look([folder], Queue())
    assert seen.job is None
    assert Submission(tmp_path).claim([folder], Queue()) == [folder]


@pytest.fixture
def packed(folders, tmp_path):
    """Three trials that were submitted as two jobs of array 12, the first carrying two."""
    submission = Submission(tmp_path)
    packs = [folders[:2], folders[2:]]
    assert submission.claim_packs(packs, Answers()) == packs
    submission.folder.mkdir(parents=True)
    submission.submitted("12", 2, packs)
    return submission


def test_trials_of_a_pack_are_in_one_job_and_are_not_submitted_again(folders, packed, tmp_path):
    assert [jobs_of(folder) for folder in folders] == [["12_0"], ["12_0"], ["12_1"]]
    later = Submission(tmp_path)
    assert later.claim_packs([folders], Answers(j12_0="PENDING")) == [[folders[2]]]
    assert (packed.holds(folders[0]), packed.holds(folders[2])) == (True, False)


def test_only_the_last_open_trial_of_a_pack_ends_its_job(folders, packed):
    one, other, alone = folders
    assert leave(one) == []
    assert jobs_of(one) == []
    assert leave(other) == ["12_0"]
    assert leave(alone) == ["12_1"]


@pytest.mark.parametrize("how", ["failed", "completed", "cancelled", "claimed anew"])
def test_a_trial_that_its_job_has_not_to_run_keeps_no_job(folders, packed, tmp_path, how):
    one, other, _ = folders
    if how == "failed":
        one.begin_attempt()
        one.end_attempt("failed", "boom")
        assert leave(one) == []
        assert jobs_of(one) == ["12_0"]  # its log is still found
    elif how == "completed":
        one.complete({"key": one.path.name})
    elif how == "cancelled":
        one.cancel()
    else:
        assert Submission(tmp_path).claim([one], Answers()) == [one]
    assert leave(other) == ["12_0"]


def test_a_trial_of_a_pack_that_has_failed_is_submitted_again_beside_it(folders, packed, tmp_path):
    one, other, _ = folders
    one.begin_attempt()
    one.end_attempt("failed", "boom")
    assert state_of(one, j12_0="RUNNING") == "failed"
    later = Submission(tmp_path)
    assert later.claim([one, other], Answers(j12_0="RUNNING")) == [one]


@pytest.mark.parametrize("text", ["{", '{"packs": 3}', '{"packs": []}', '{"packs": [7]}'])
def test_a_pack_that_is_not_known_ends_with_each_of_its_trials(folders, packed, text):
    packed.packs.write_text(text)
    assert leave(folders[0]) == ["12_0"]

"""Run folders: whole files, one owner, and states that follow from files alone."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time

import pytest

from gapbench.base.documents import read_json, write_json
from gapbench.errors import UserError
from gapbench.runs import leases
from gapbench.runs.store import LOST_AFTER, Owned, RunFolder, TakenOver
from tests.children import context, in_child

HOST = socket.gethostname()


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "0123456789abcdef")
    made.prepare({"key": "0123456789abcdef"})
    return made


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "[1]", "\x00\xff", "null"])
def test_a_half_written_document_counts_as_absent(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_text(content)
    assert read_json(path) is None


def test_a_write_that_fails_leaves_the_old_document(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_states_follow_the_files(folder):
    assert RunFolder(folder.path / "none").state() == "planned"
    assert folder.state() == "planned"
    folder.submitted.write_text("{}")
    assert folder.state() == "queued"
    with folder.owned():
        folder.begin_attempt()
        assert folder.state() == "running"
    assert folder.state() == "lost"
    folder.end_attempt("failed", error="boom")
    assert folder.state() == "failed"
    folder.end_attempt("interrupted")
    assert folder.state() == "interrupted"
    folder.complete({"key": folder.path.name})
    assert folder.state() == "completed"


def test_an_attempt_that_has_ended_expects_nothing_more(folder):
    with folder.owned():
        folder.begin_attempt()
        for legs in (1, 2):
            folder.beat(seconds_left=12.5)
            folder.end_leg()
            told = folder.read_status()
            assert (told["state"], told["seconds_left"], told["legs"]) == (
                "interrupted",
                None,
                legs,
            )
        folder.beat(seconds_left=12.5)
        folder.end_attempt("failed", error="boom")
    told = folder.read_status()
    assert (told["state"], told["seconds_left"], told["error"]) == ("failed", None, "boom")


def test_a_result_of_another_trial_does_not_complete_this_one(folder):
    folder.complete({"key": "fedcba9876543210"})
    assert not folder.completed()


def test_a_dead_owner_is_replaced_and_a_live_one_is_not(folder):
    with folder.owned():
        with pytest.raises(UserError, match=f"being run by process {os.getpid()}"):
            folder_again = RunFolder(folder.path)
            with folder_again.owned():
                pass
        mark = json.loads(folder.owner.read_text())
    write_json(folder.owner, {**mark, "pid": 2**22 + 1, "began": "1"})
    with folder.owned():
        assert json.loads(folder.owner.read_text())["pid"] == os.getpid()
    assert not list(folder.path.glob(".owner*"))


def test_a_reused_process_id_is_not_taken_for_the_owner(folder):
    with folder.owned():
        mark = json.loads(folder.owner.read_text())
    write_json(folder.owner, {**mark, "began": "12345"})
    assert folder.state() == "lost"


def test_an_owner_on_another_host_is_judged_by_its_heartbeat(folder):
    mark = {"token": "t", "host": socket.gethostname() + "-other", "pid": 1, "began": "1"}
    write_json(folder.owner, mark)
    assert folder.state() == "running"
    past = time.time() - LOST_AFTER - 1
    os.utime(folder.owner, (past, past))
    assert folder.state() == "lost"
    folder.beat(epoch=1)
    assert folder.state() == "running"


def test_a_sign_of_life_from_the_future_is_none(folder):
    write_json(folder.owner, {"token": "t", "host": "elsewhere", "pid": 1, "began": "1"})
    for path in (folder.owner, folder.status):
        path.touch()
        future = time.time() + LOST_AFTER + 60
        os.utime(path, (future, future))
    assert folder.state() == "lost" and folder.living_owner() is None
    with folder.owned():
        assert folder.state() == "running"


def test_a_folder_is_owned_by_one_where_there_are_no_hard_links(folder, monkeypatch):
    def refuse(source, path):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with folder.owned():
        assert RunFolder(folder.path).state() == "running"
        with pytest.raises(Owned), RunFolder(folder.path).owned():
            pass
        folder.require_owner()
    assert list(folder.path.glob("*owner*")) == []


def test_an_owner_that_was_replaced_may_not_write_any_more(folder):
    with folder.owned():
        folder.require_owner()
        mark = json.loads(folder.owner.read_text())
        write_json(folder.owner, {**mark, "token": "somebody else's"})
        with pytest.raises(TakenOver, match="another process has taken this trial over"):
            folder.require_owner()
    assert json.loads(folder.owner.read_text())["token"] == "somebody else's"


def test_attempts_are_numbered_from_one(folder):
    assert folder.begin_attempt() == 1
    (folder.sacred / "1").mkdir()
    (folder.sacred / "_sources").mkdir()
    assert folder.begin_attempt() == 2


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(blocked / "runs" / "a").prepare({})


def test_forgetting_deletes_everything_unless_somebody_is_running_it(folder):
    other = RunFolder(folder.path)
    with folder.owned(), pytest.raises(UserError, match="being run"), other.forgotten():
        pass
    assert folder.trial.exists()
    with other.forgotten():
        assert not folder.path.exists()
    assert list(folder.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "mark",
    [{}, {"pid": "x"}, {"pid": 1, "host": 3}, {"pid": 1, "began": "1", "restarts": "x"},
     {"pid": -1, "began": "1"}, {"pid": 2**22 + 1}, {"pid": 2**22 + 1, "began": None},
     {"pid": 1, "began": "1", "slurm_job": "--user=root"}],
)  # fmt: skip
def test_a_damaged_mark_of_an_owner_counts_as_absent(folder, mark):
    write_json(folder.owner, {"token": "t", "host": HOST, **mark})
    assert folder.state() == "planned"
    assert folder.living_owner() is None
    assert not leases.runs_here(mark)
    with folder.owned():
        assert folder.state() == "running"


@pytest.mark.parametrize(
    "damage", [{"attempt": "1"}, {"metric": 3}, {"metric": {"val/loss": "x"}}, {"epochs": [5]}]
)
def test_a_damaged_heartbeat_counts_as_absent(folder, damage):
    with folder.owned():
        folder.begin_attempt()
        assert folder.read_status()["attempt"] == 1
        write_json(folder.status, {**folder.read_status(), **damage})
        assert folder.read_status() == {}
    assert folder.state() == "planned"


def test_what_was_to_be_forgotten_comes_back_if_nothing_could_take_its_place(folder):
    before = snapshot(folder)
    with pytest.raises(UserError, match="refused"), folder.forgotten():
        folder.prepare({"key": "new"})
        raise UserError("refused")
    assert snapshot(folder) == before
    assert [path.name for path in folder.path.parent.iterdir()] == [folder.path.name]
    assert folder.state() == "planned"


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_requeued_job_takes_over_from_its_earlier_copy_which_then_writes_nothing(
    folder, monkeypatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "21")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with folder.owned():
        folder.begin_attempt()
        with pytest.raises(Owned), RunFolder(folder.path).owned():
            pass
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        later = RunFolder(folder.path)
        with later.owned():
            later.begin_attempt()
            before = snapshot(folder)
            assert json.loads(before[folder.owner])["slurm_job"] == "12_3"
            for write in (
                lambda: folder.beat(epoch=7),
                lambda: folder.end_attempt("failed", "too late"),
                lambda: folder.save_model({}, {}),
                lambda: folder.complete({"key": folder.path.name}),
            ):
                with pytest.raises(TakenOver):
                    write()
            assert snapshot(folder) == before
    assert folder.state() == "lost"  # the later copy left without a word


def test_a_broken_mark_does_not_block_a_folder(folder):
    folder.owner.write_text("{")
    with folder.owned():
        folder.require_owner()
    assert not folder.owner.exists()


def test_removing_a_mark_spares_one_that_has_replaced_it(tmp_path):
    path = tmp_path / "owner.json"
    assert leases.create(path, {"token": "a"})
    assert not leases.create(path, {"token": "b"})
    leases.remove(path, {"token": "b"})
    assert read_json(path) == {"token": "a"}
    leases.remove(path, {"token": "a"})
    leases.remove(path, {"token": "a"})
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_one_becomes_the_owner(folder):
    count = 12
    start = context().Event()
    winners = context().Queue()
    processes = [in_child(_own, folder.path, start, winners) for _ in range(count)]
    start.set()
    told = [winners.get(timeout=20) for _ in range(count)]
    for process in processes:
        process.kill()
        process.join()
    assert sorted(told) == [False] * (count - 1) + [True]


def _own(path, start, winners):
    start.wait()
    try:
        with RunFolder(path).owned():
            winners.put(True)
            time.sleep(60)
    except Owned:
        winners.put(False)


def test_leftovers_of_killed_writers_are_swept_but_not_what_is_being_written_to_own_it(folder):
    kept = {".owner.json.0123abcd", ".bashrc", ".status.json", ".status.json.0123abcd.txt"}
    for name in (".status.json.0123abcd", ".checkpoint.pt.4567cdef", *kept):
        (folder.path / name).write_text("")
    folder.sweep()
    assert {path.name for path in folder.path.glob(".*")} == kept


def test_only_who_knows_what_several_trials_of_a_process_go_by_terminates_it(tmp_path):
    folder, caught = RunFolder(tmp_path), []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        with folder.owned("mine"):
            assert not folder.terminate_owner() and not folder.terminate_owner("others")
            assert not caught
            assert folder.terminate_owner("mine")
            assert caught == [signal.SIGTERM]
        with folder.owned():
            assert not folder.terminate_owner("mine")
            assert folder.terminate_owner()
            assert len(caught) == 2
    finally:
        signal.signal(signal.SIGTERM, before)

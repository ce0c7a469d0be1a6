"""Run folders: whole files, one owner, and states that follow from files alone."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from gapbench.errors import UserError
from gapbench.experiments.store import LOST_AFTER, RunFolder, read_json, write_json


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "0123456789abcdef")
    made.prepare({"key": "0123456789abcdef"}, {"segments": []})
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


def test_an_owner_that_was_replaced_may_not_write_any_more(folder):
    with folder.owned():
        folder.require_owner()
        mark = json.loads(folder.owner.read_text())
        write_json(folder.owner, {**mark, "token": "somebody else's"})
        with pytest.raises(UserError, match="another process has taken this trial over"):
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
        RunFolder(blocked / "runs" / "a").prepare({}, {})


def test_forgetting_deletes_everything_unless_somebody_is_running_it(folder):
    other = RunFolder(folder.path)
    with folder.owned(), pytest.raises(UserError, match="being run"):
        other.forget()
    other.forget()
    assert not folder.path.exists()

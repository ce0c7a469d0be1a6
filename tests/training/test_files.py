"""Checkpoints and histories: whole or not there, and cut back to what a checkpoint vouches for."""

from __future__ import annotations

import errno
import io
import json
import pickle

import pytest
import torch

from gapbench.errors import UserError
from gapbench.training import state
from gapbench.training.history import History

CPU = torch.device("cpu")


def test_a_checkpoint_comes_back_equal(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state.save(path, {"a": torch.arange(5), "b": {"c": 1.5}})
    loaded = state.load(path, CPU)
    assert torch.equal(loaded["a"], torch.arange(5))
    assert loaded["b"] == {"c": 1.5}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    state.save(path, {"a": torch.arange(5000)})
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle] ^= 1
    contents = {"cut": bytes(whole[:middle]), "flip": bytes(whole), "empty": b"", "text": b"hello"}
    path.write_bytes(contents[damage])
    with pytest.raises(UserError, match="is damaged") as caught:
        state.load(path, CPU)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"schema": 0}])
def test_a_file_that_holds_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"is damaged .*--force") as caught:
        state.load(path, CPU)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


class FailingDisk(io.BytesIO):
    """A file of which the first bytes can be read no more."""

    def read(self, size=-1):
        if self.tell() < 100:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_checkpoint_on_a_failing_disk_is_not_called_damaged(tmp_path, monkeypatch):
    """It may be good: `--force`, which is advised for damaged ones, would throw it away."""
    path = tmp_path / "checkpoint.pt"
    state.save(path, {"a": torch.arange(5000)})
    monkeypatch.setattr(state, "open_plain", lambda path: FailingDisk(path.read_bytes()))
    with pytest.raises(UserError, match=f"^{path}: cannot be read: Input/output error$"):
        state.load(path, CPU)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"schema": 1, "a": print}, path)
    with pytest.raises(UserError, match="damaged"):
        state.load(path, CPU)


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_leftover(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state.save(path, {"a": 1})

    def refuse():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        state.save(path, {"a": 2}, allow=refuse)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        state.save(path, {"a": lambda: 3})
    assert state.load(path, CPU)["a"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_history_goes_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.append({"epoch": 1})
    offset = history.sync()
    history.append({"epoch": 2})
    history.close()
    with open(path, "ab") as file:
        file.write(b'{"epoch": 3, "ha')
    history = History(path, offset)
    history.append({"epoch": 2, "again": True})
    history.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"epoch": 1}, {"epoch": 2, "again": True}]


def test_an_earlier_copy_of_a_run_cannot_write_into_the_history_of_the_next(tmp_path):
    path = tmp_path / "history.jsonl"
    earlier = History(path)
    earlier.append({"epoch": 1})
    offset = earlier.sync()
    later = History(path, offset)
    earlier.append({"epoch": 2, "by": "earlier"})
    earlier.close()
    later.append({"epoch": 2, "by": "later"})
    later.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"epoch": 1}, {"epoch": 2, "by": "later"}]


def test_a_history_shorter_than_its_checkpoint_says_is_refused(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("{}")
    with pytest.raises(UserError, match="shorter than its checkpoint"):
        History(path, 10)

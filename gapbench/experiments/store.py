"""Run folders: where a trial keeps its files, who owns it, and what state it is in.

Every file that decides something is written to a temporary name, synced and renamed, so that a
reader finds the old or the new one. A trial is completed exactly when its result.json is there.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gapbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

State = Literal["planned", "queued", "running", "lost", "interrupted", "failed", "completed"]

LOST_AFTER = 120.0  # seconds without a heartbeat after which a run on another host counts as dead


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` so that `path` always holds one whole document."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the document in `path`, or None if it is absent, broken or no object."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


class RunFolder:
    """The folder of one trial (or of one branch of it); creating the object touches no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trial = path / "trial.json"
        self.plan = path / "plan.json"
        self.status = path / "status.json"
        self.history = path / "history.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.model = path / "final.pt"
        self.result = path / "result.json"
        self.log = path / "log.txt"
        self.error = path / "error.txt"
        self.sacred = path / "sacred"
        self.rounds = path / "rounds"
        self.submitted = path / "submitted.json"
        self.owner = path / "owner.json"
        self._token: str | None = None

    def prepare(self, trial: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Create the folder with what a node needs to run the trial; what is there stays.

        Raises:
            UserError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if read_json(self.trial) != trial:
                write_json(self.trial, trial)
            if read_json(self.plan) != plan:
                write_json(self.plan, plan)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def forget(self) -> None:
        """Delete everything the trial has done.

        Raises:
            UserError: if a live process owns the folder, or it cannot be deleted.
        """
        import shutil

        if not self.path.exists():
            return
        with self.owned():
            try:
                shutil.rmtree(self.path)
            except OSError as error:
                raise UserError(f"{self.path}: cannot be deleted: {error.strerror}") from None

    # -- state -------------------------------------------------------------------------------

    def read_result(self) -> dict[str, Any] | None:
        """Return the result of a completed trial, or None."""
        result = read_json(self.result)
        return result if result is not None and result.get("key") == self.path.name else None

    def completed(self) -> bool:
        """Say whether the trial's result is there."""
        return self.read_result() is not None

    def state(self) -> State:
        """Return the state as the files tell it."""
        if self.completed():
            return "completed"
        owner = read_json(self.owner)
        if owner is not None:
            return "running" if _alive(owner, self._last_sign()) else "lost"
        written = (read_json(self.status) or {}).get("state")
        if written in ("failed", "interrupted"):
            return "failed" if written == "failed" else "interrupted"
        if written == "running":
            return "lost"
        return "queued" if self.submitted.exists() else "planned"

    def _last_sign(self) -> float:
        times = [0.0]
        for path in (self.owner, self.status):
            try:
                times.append(path.stat().st_mtime)
            except OSError:
                continue
        return max(times)

    # -- ownership ---------------------------------------------------------------------------

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder while the block runs; what a dead owner left is taken over.

        Raises:
            UserError: if a live process owns it.
        """
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def require_owner(self) -> None:
        """Check, before a write that decides something, that no other process has taken over.

        Raises:
            UserError: if one has.
        """
        if self._token is None:
            return  # a branch's folder: it belongs to the owner of the trial
        owner = read_json(self.owner)
        if owner is None or owner["token"] != self._token:
            raise UserError(f"{self.path}: another process has taken this trial over; stopping")

    def _take(self) -> None:
        token = uuid.uuid4().hex
        mark = {
            "token": token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": _process_start(os.getpid()),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }
        partial = self.path / f".owner.{token}"
        write_json(partial, mark)
        try:
            while True:
                try:
                    os.link(partial, self.owner)  # fails where the name exists, on NFS too
                    self._token = token
                    return
                except FileExistsError:
                    self._remove_dead_owner()
        finally:
            partial.unlink(missing_ok=True)

    def _remove_dead_owner(self) -> None:
        owner = read_json(self.owner)
        if owner is None:
            return
        if _alive(owner, self._last_sign()):
            raise UserError(
                f"trial {self.path.name} is being run by process {owner['pid']} on "
                f"{owner['host']}; wait for it, or stop it with `gapbench cancel`"
            )
        grave = self.path / f".owner.dead.{owner['token']}"
        try:
            os.rename(self.owner, grave)
        except FileNotFoundError:
            return
        buried = read_json(grave)
        grave.unlink(missing_ok=True)
        if buried is not None and buried["token"] != owner["token"]:
            raise UserError(f"trial {self.path.name} has just been taken by another process")

    def _give_back(self) -> None:
        owner = read_json(self.owner)
        if owner is not None and owner["token"] == self._token:
            self.owner.unlink(missing_ok=True)
        self._token = None

    # -- attempts and their signs of life ------------------------------------------------------

    def begin_attempt(self) -> int:
        """Return the number of the attempt that begins, from 1, and say that it runs."""
        self.sacred.mkdir(parents=True, exist_ok=True)
        known = [int(p.name) for p in self.sacred.iterdir() if p.name.isdigit()]
        attempt = max(known, default=0) + 1
        self.error.unlink(missing_ok=True)
        write_json(
            self.status,
            {
                "state": "running",
                "attempt": attempt,
                "started": time.time(),
                "updated": time.time(),
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "slurm_job": os.environ.get("SLURM_JOB_ID"),
                "error": None,
            },
        )
        return attempt

    def beat(self, **fields: Any) -> None:
        """Rewrite the heartbeat with new `fields`."""
        status = read_json(self.status) or {}
        write_json(self.status, {**status, **fields, "updated": time.time()})

    def end_attempt(self, state: State, error: str | None = None) -> None:
        """Write how the attempt ended."""
        self.beat(state=state, error=error, seconds_left=None)

    # -- the end -------------------------------------------------------------------------------

    def save_model(self, model: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Write the finished model's weights and masks; `weights_only` reads them."""
        import torch

        partial = self.model.with_name(f".{self.model.name}.partial")
        torch.save({"model": dict(model), "masks": dict(masks)}, partial)
        os.replace(partial, self.model)

    def complete(self, result: Mapping[str, Any]) -> None:
        """Write the result, and remove what only an unfinished trial needs."""
        import shutil

        status = read_json(self.status) or {}
        write_json(self.result, {**result, "attempts": status.get("attempt", 1)})
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.rounds, ignore_errors=True)


def _alive(owner: Mapping[str, Any], last_sign: float) -> bool:
    """Say whether an owner lives: by its process on this host, else by its last sign of life."""
    if owner.get("host") == socket.gethostname():
        return _process_start(int(owner["pid"])) == owner.get("began")
    return time.time() - last_sign < LOST_AFTER


def _process_start(pid: int) -> str | None:
    """Return the kernel's start time of a process, which no later process of that id shares."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self").exists() else _exists(pid)
    return None if stat[0] == "Z" else stat[19]


def _exists(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "some process"

"""Run folders: where a trial keeps its files, who owns it, and what state it is in.

Every file that decides something is written to a temporary name, synced and renamed, so that a
reader finds the old or the new one. A trial is completed exactly when its result.json is there.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gapbench.errors import UserError, choose
from gapbench.experiments import marks
from gapbench.experiments.marks import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

State = Literal["planned", "queued", "running", "lost", "interrupted", "failed", "completed"]

# seconds without a heartbeat after which a run on another host counts as dead; evaluating a large
# model beats no heart
LOST_AFTER = 300.0

# what a heartbeat may hold, beside nothing
KINDS: dict[str, Any] = {
    "state": str,
    "attempt": int,
    "epoch": int | float,
    "epochs": int,
    "phase": str,
    "metric": dict,
    "density": int | float,
    "seconds_left": int | float,
    "error": str,
}


class TakenOver(Exception):
    """Another copy of this attempt owns the run folder now; this one has to leave it alone."""


class Owned(UserError):
    """A live process owns the run folder.

    Attributes:
        mark: what is known of it.
    """

    def __init__(self, trial: str, mark: Mapping[str, Any]) -> None:
        super().__init__(
            f"trial {trial} is being run by process {mark.get('pid')} on {mark.get('host')}; "
            "wait for it, or stop it with `gapbench cancel`"
        )
        self.mark = mark


class _PathOf:
    """A path in a run folder, made when it is asked for: of thousands of folders few are."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: RunFolder, owner: type[RunFolder]) -> Path:
        return folder.path / self._name


class RunFolder:
    """The folder of one trial (or of one branch of it); creating the object touches no file."""

    trial = _PathOf("trial.json")
    plan = _PathOf("plan.json")
    status = _PathOf("status.json")
    history = _PathOf("history.jsonl")
    checkpoint = _PathOf("checkpoint.pt")
    model = _PathOf("final.pt")
    result = _PathOf("result.json")
    log = _PathOf("log.txt")
    error = _PathOf("error.txt")
    sacred = _PathOf("sacred")
    rounds = _PathOf("rounds")
    exchange = _PathOf("exchange.json")
    submitted = _PathOf("submitted.json")
    owner = _PathOf("owner.json")
    cancelled = _PathOf("cancelled")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token: str | None = None

    def prepare(self, trial: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Create the folder with what a node needs to run the trial; what is there stays.

        That the trial was cancelled is forgotten.

        Raises:
            UserError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if read_json(self.trial) != trial:
                write_json(self.trial, trial)
            if read_json(self.plan) != plan:
                write_json(self.plan, plan)
            self.cancelled.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def cancel(self) -> None:
        """Ask whoever runs the trial, now or next, to stop; heeded with the next heartbeat.

        Raises:
            UserError: if the folder cannot be written.
        """
        try:
            self.cancelled.touch()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """Set aside everything the trial has done; it is deleted after the block.

        If the block fails, it is brought back.

        Raises:
            Owned: if a live process owns the folder.
            UserError: if it cannot be moved.
        """
        import shutil

        if not self.path.exists():
            yield
            return
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with self.owned():
                os.rename(self.path, aside)
            (aside / self.owner.name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be moved: {error.strerror}") from None
        try:
            yield
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            os.rename(aside, self.path)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    # -- state -------------------------------------------------------------------------------

    def read_result(self) -> dict[str, Any] | None:
        """Return the result of a completed trial, or None."""
        result = read_json(self.result)
        return result if result is not None and result.get("key") == self.path.name else None

    def read_status(self) -> dict[str, Any]:
        """Return the last heartbeat; a damaged one counts as absent, which is an empty mapping."""
        status = read_json(self.status) or {}
        fits = all(isinstance(status[k], kind) for k, kind in KINDS.items() if status.get(k))
        metrics = (status.get("metric") or {}).values() if fits else ()
        return status if fits and all(isinstance(m, int | float) for m in metrics) else {}

    def completed(self) -> bool:
        """Say whether the trial's result is there."""
        return self.read_result() is not None

    def state(self) -> State:
        """Return the state as the files tell it."""
        if self.completed():
            return "completed"
        owner = read_json(self.owner)
        mark = owner if marks.is_mark(owner) else None
        if mark and self._lives(mark):
            return "running"
        written = self.read_status().get("state")
        if not mark and written in ("failed", "interrupted"):
            return "failed" if written == "failed" else "interrupted"
        if mark or written == "running":
            # one that was asked to stop and then killed has ended as it should
            return "interrupted" if self.cancelled.exists() else "lost"
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
            Owned: if a live process owns it.
        """
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def require_owner(self) -> None:
        """Check, before every write, that no other process has taken over.

        Raises:
            TakenOver: if one has.
        """
        if self._token is None:
            return  # a branch's folder: it belongs to the owner of the trial
        owner = read_json(self.owner)
        if owner is None or owner.get("token") != self._token:
            raise TakenOver(f"{self.path}: another process has taken this trial over")

    def living_owner(self) -> dict[str, Any] | None:
        """Return the mark of the process that owns the folder, or None: free, or it is dead."""
        owner = read_json(self.owner)
        return owner if marks.is_mark(owner) and self._lives(owner) else None

    def _lives(self, owner: Mapping[str, Any]) -> bool:
        """Judge an owner by its process on this host, else by its last sign of life."""
        if marks.outlived(owner):
            return False
        if marks.is_here(owner):
            return marks.runs_here(owner)
        return time.time() - self._last_sign() < LOST_AFTER

    def _take(self) -> None:
        token = uuid.uuid4().hex
        while not marks.create(self.owner, {"token": token, **marks.this_process()}):
            owner = read_json(self.owner)
            if marks.is_mark(owner) and self._lives(owner):
                raise Owned(self.path.name, owner)
            marks.remove(self.owner, owner)
        self._token = token

    def _give_back(self) -> None:
        owner = read_json(self.owner)
        if owner is not None and owner.get("token") == self._token:
            marks.remove(self.owner, owner)
        self._token = None

    def sweep(self) -> None:
        """Delete what killed owners have left of unfinished writes."""
        for leftover in self.path.glob(".*"):
            if leftover.is_file() and not leftover.name.startswith(f".{self.owner.name}"):
                leftover.unlink(missing_ok=True)

    # -- attempts and their signs of life ------------------------------------------------------

    def begin_attempt(self) -> int:
        """Return the number of the attempt that begins, from 1, and say that it runs."""
        self.sacred.mkdir(parents=True, exist_ok=True)
        known = [int(p.name) for p in self.sacred.iterdir() if p.name.isdigit()]
        attempt = max(known, default=0) + 1
        legs = (read_json(self.status) or {}).get("legs", 0)
        self.error.unlink(missing_ok=True)
        write_json(
            self.status,
            {
                "state": "running",
                "attempt": attempt,
                "legs": legs,
                "started": time.time(),
                "updated": time.time(),
                "error": None,
                **marks.this_process(),
            },
        )
        return attempt

    def beat(self, **fields: Any) -> None:
        """Rewrite the heartbeat with new `fields`.

        Raises:
            TakenOver: if another process has taken over.
        """
        self.require_owner()
        status = self.read_status()
        write_json(self.status, {**status, **fields, "updated": time.time()})

    def end_leg(self) -> None:
        """Write that the attempt has ended where another job of its chain goes on."""
        legs = (read_json(self.status) or {}).get("legs", 0)
        self.beat(state="interrupted", error=None, seconds_left=None, legs=legs + 1)

    def end_attempt(self, state: State, error: str | None = None) -> None:
        """Write how the attempt ended."""
        self.beat(state=state, error=error, seconds_left=None)

    # -- the end -------------------------------------------------------------------------------

    def save_model(self, model: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Write the finished model's weights and masks; `weights_only` reads them."""
        import torch

        partial = self.model.with_name(f".{self.model.name}.{uuid.uuid4().hex[:8]}")
        try:
            torch.save({"model": dict(model), "masks": dict(masks)}, partial)
            self.require_owner()
            os.replace(partial, self.model)
        finally:
            partial.unlink(missing_ok=True)

    def complete(self, result: Mapping[str, Any]) -> None:
        """Write the result, and remove what only an unfinished trial needs.

        Raises:
            TakenOver: if another process has taken over.
        """
        import shutil

        self.require_owner()
        status = self.read_status()
        write_json(self.result, {**result, "attempts": status.get("attempt", 1)})
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.rounds, ignore_errors=True)


def one_key(results: Path, begin: str, keys: Sequence[str]) -> str:
    """Return the trial key that begins with `begin`.

    Raises:
        UserError: if none of `keys` does, or more than one.
    """
    found = [key for key in keys if key.startswith(begin)]
    if not found:
        raise UserError(f"{results}: {choose('trial', begin, keys[:20])}")
    if len(found) > 1:
        raise UserError(f"trial {begin!r}: more than one key begins so: {', '.join(found[:5])}")
    return found[0]

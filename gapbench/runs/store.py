"""Run folders: the files of a trial, the process that owns the trial, and the trial's state.

Every file that decides about a state is written to a temporary name, synced and renamed, so that a
reader finds the old or the new file. A trial is completed exactly if its result.json exists.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError

from gapbench.base.documents import (
    open_plain,
    read_json,
    replacing,
    require_real,
    write_json,
    write_text,
)
from gapbench.errors import UserError, choose
from gapbench.runs import leases
from gapbench.runs.documents import ERROR_LETTERS, Heartbeat

if TYPE_CHECKING:
    from torch import Tensor

State = Literal["planned", "queued", "running", "lost", "interrupted", "failed", "completed"]

# seconds without a heartbeat after which a run on another host counts as dead; the evaluation of a
# large model writes no heartbeat
LOST_AFTER = 300.0


class TakenOver(Exception):
    """Another process owns the run folder now; this process must not touch the folder."""


class Owned(UserError):
    """A live process owns the run folder.

    Attributes:
        lease: lease of the owner.
    """

    def __init__(self, trial: str, lease: Mapping[str, Any]) -> None:
        super().__init__(
            f"trial {trial} is being run by process {lease.get('pid')} on {lease.get('host')}; "
            "wait for it, or stop it with `gapbench cancel`"
        )
        self.lease = lease


class _PathOf:
    """A path in a run folder, built on access, since few of thousands of folders are accessed."""

    known: ClassVar[dict[str, bool]] = {}  # whether it is a folder, by name

    def __init__(self, name: str, is_folder: bool = False) -> None:
        self._name = name
        self.known[name] = is_folder

    def __get__(self, folder: RunFolder, owner: type[RunFolder]) -> Path:
        return folder.path / self._name


class RunFolder:
    """The folder of one trial, or of one branch of a trial; the constructor touches no file."""

    trial = _PathOf("trial.json")
    status = _PathOf("status.json")
    history = _PathOf("history.jsonl")
    checkpoint = _PathOf("checkpoint.pt")
    model = _PathOf("final.pt")
    result = _PathOf("result.json")
    log = _PathOf("log.txt")
    error = _PathOf("error.txt")
    sacred = _PathOf("sacred", is_folder=True)
    rounds = _PathOf("rounds", is_folder=True)
    jobs = _PathOf("submitit", is_folder=True)
    exchange = _PathOf("exchange.json")
    submitted = _PathOf("submitted.json")
    owner = _PathOf("owner.json")
    cancelled = _PathOf("cancelled")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token: str | None = None
        self._held: IO[bytes] | None = None

    @property
    def lanes(self) -> Path:
        """The folder for the output of processes that run several trials of a results folder."""
        return self.path.parent.parent / "lanes"

    @property
    def attempts(self) -> int:
        """Number of attempts that have begun."""
        return self.read_status().get("attempt") or 0

    def prepare(self, trial: Mapping[str, Any]) -> None:
        """Create the folder with the files that a node needs to run the trial; keep existing files.

        An earlier cancellation of the trial is cleared.

        Raises:
            UserError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.require_plain()
            if read_json(self.trial) != trial:
                write_json(self.trial, trial)
            self.cancelled.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def require_plain(self) -> None:
        """Check that this folder's files are plain files and its subfolders are real folders.

        A link could lead out of the folder, and a pipe could block for ever.

        Raises:
            UserError: naming the first entry that is neither a plain file nor a real folder.
        """
        for name, is_folder in _PathOf.known.items():
            try:
                mode = (self.path / name).lstat().st_mode
            except OSError:
                continue
            if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
                kind = "real folder" if is_folder else "plain file"
                raise UserError(f"{self.path / name}: is not a {kind}: remove it")

    def cancel(self) -> None:
        """Ask the current or next owner of the trial to stop; it stops at its next heartbeat.

        Raises:
            UserError: if the folder cannot be written.
        """
        try:
            write_text(self.cancelled, "")
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: cannot be written: {error.strerror}")

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """Set aside all work of the trial; delete the work after the block.

        If the block fails, the work is restored.

        Raises:
            Owned: if a live process owns the folder.
            UserError: if the work cannot be moved.
        """
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
        if aside.is_symlink():
            aside.unlink()  # what it leads to is the user's
        shutil.rmtree(aside, ignore_errors=True)

    # -- state -------------------------------------------------------------------------------

    def read_result(self) -> dict[str, Any] | None:
        """Return the result of a completed trial, or None."""
        result = read_json(self.result)
        return result if result is not None and result.get("key") == self.path.name else None

    def read_status(self) -> dict[str, Any]:
        """Return the last heartbeat, or an empty mapping if it is absent or damaged."""
        status = read_json(self.status) or {}
        try:
            Heartbeat.model_validate(status)
        except ValidationError:
            return {}
        return status

    def completed(self) -> bool:
        """Say whether the trial's result exists."""
        return self.read_result() is not None

    def state(self) -> State:
        """Return the trial's state from the folder's files."""
        if self.completed():
            return "completed"
        owner = read_json(self.owner)
        lease = owner if leases.is_lease(owner) else None
        if lease and self._lives(lease):
            return "running"
        written = self.read_status().get("state")
        if not lease and written in ("failed", "interrupted"):
            return "failed" if written == "failed" else "interrupted"
        if lease or written == "running":
            # a trial that was asked to stop and then killed has ended as intended
            return "interrupted" if self.cancelled.exists() else "lost"
        return "queued" if self.submitted.exists() else "planned"

    def _last_sign(self) -> float:
        times = [0.0]
        for path in (self.owner, self.status):
            try:
                times.append(path.lstat().st_mtime)
            except OSError:
                continue
        return max(times)

    # -- ownership ---------------------------------------------------------------------------

    @contextmanager
    def owned(self, lanes: str = "") -> Iterator[None]:
        """Own the folder while the block runs; take over the folder of a dead owner.

        Args:
            lanes: name of this process's lanes, if the process has several trials.

        Raises:
            Owned: if a live process owns the folder.
            UserError: if an entry of the folder is not of the kind that its name says.
        """
        self.require_plain()
        self._take(lanes)
        try:
            yield
        finally:
            self._give_back()

    def require_owner(self) -> None:
        """Check, before every write, that no other process has taken over.

        Raises:
            TakenOver: if another process has taken over.
        """
        if self._token is None:
            return  # a branch's folder: it belongs to the owner of the trial
        owner = read_json(self.owner)
        if owner is None or owner.get("token") != self._token:
            raise TakenOver(f"{self.path}: another process has taken this trial over")

    def living_owner(self) -> dict[str, Any] | None:
        """Return the lease of the live process that owns the folder, or None if there is none."""
        owner = read_json(self.owner)
        return owner if leases.is_lease(owner) and self._lives(owner) else None

    def _lives(self, owner: Mapping[str, Any]) -> bool:
        """Say whether an owner lives, by its process on this host, else by its last heartbeat."""
        if leases.outlived(owner):
            return False
        if leases.is_here(owner):
            return leases.runs_here(owner)
        # a sign from a future that clocks do not differ by is none
        return abs(time.time() - self._last_sign()) < LOST_AFTER

    def terminate_owner(self, lanes: str = "") -> bool:
        """Send SIGTERM to the process that owns the folder; return whether it was on this host.

        A process with other trials gets no signal, unless its lanes have the name `lanes`.
        """
        owner = read_json(self.owner)
        if owner is None or owner.get("lanes", "") != lanes:
            return False
        return leases.terminate(self.owner, owner)

    def _take(self, lanes: str) -> None:
        token = uuid.uuid4().hex
        mark = {"token": token, **({"lanes": lanes} if lanes else {}), **leases.this_process()}
        while not leases.create(self.owner, mark):
            owner = read_json(self.owner)
            if leases.is_lease(owner) and self._lives(owner):
                raise Owned(self.path.name, owner)
            leases.remove(self.owner, owner)
        self._token = token
        with suppress(OSError):  # another has replaced it already, which `require_owner` will find
            self._held = open_plain(self.owner)  # how `leases.terminate` knows this process

    def _give_back(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None
        owner = read_json(self.owner)
        if owner is not None and owner.get("token") == self._token:
            leases.remove(self.owner, owner)
        self._token = None

    def sweep(self) -> None:
        """Delete unfinished writes of killed owners, and nothing else."""
        names = "|".join(re.escape(name) for name in _PathOf.known if name != self.owner.name)
        unfinished = re.compile(rf"\.({names})\.[0-9a-f]{{8}}")
        for leftover in self.path.glob(".*"):
            if unfinished.fullmatch(leftover.name) and not leftover.is_dir():
                leftover.unlink(missing_ok=True)

    def branches(self) -> Iterator[tuple[int, int, RunFolder]]:
        """Yield (part, branch, folder) of the trial's branches, in order."""
        for part in _numbered(self.rounds):
            for branch in _numbered(part):
                yield int(part.name), int(branch.name), RunFolder(branch)

    # -- attempts and their signs of life ------------------------------------------------------

    def begin_attempt(self) -> int:
        """Record the start of an attempt, and return the number of the attempt, from 1."""
        require_real(self.sacred, self.path)
        self.sacred.mkdir(parents=True, exist_ok=True)
        attempt = max((int(place.name) for place in _numbered(self.sacred)), default=0) + 1
        legs = self.read_status().get("legs") or 0
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
                **leases.this_process(),
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
        """Record the end of the attempt at the epoch where another job of its chain takes over."""
        legs = self.read_status().get("legs") or 0
        self.beat(state="interrupted", error=None, seconds_left=None, legs=legs + 1)

    def end_attempt(self, state: State, error: str | None = None) -> None:
        """Record the final state of the attempt, and its error, if any."""
        error = error and error[:ERROR_LETTERS]
        self.beat(state=state, error=error, seconds_left=None)

    # -- the end -------------------------------------------------------------------------------

    def save_model(self, model: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Write the finished model's weights and masks; `weights_only` reads them."""
        import torch

        with replacing(self.model) as file:
            torch.save({"model": dict(model), "masks": dict(masks)}, file)
            self.require_owner()

    def complete(self, result: Mapping[str, Any]) -> None:
        """Write the result, and remove files that only an unfinished trial needs.

        Raises:
            TakenOver: if another process has taken over.
        """
        self.require_owner()
        status = self.read_status()
        write_json(self.result, {**result, "attempts": status.get("attempt", 1)})
        self.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.rounds, ignore_errors=True)


def _numbered(folder: Path) -> Iterator[Path]:
    """Yield the real folders in `folder` whose names are numbers, in numeric order."""
    try:
        found = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    names = [entry.name for entry in found if re.fullmatch(r"[0-9]{1,9}", entry.name)]
    yield from (folder / name for name in sorted(names, key=int))


def one_key(results: Path, begin: str, keys: Sequence[str]) -> str:
    """Return the trial key that begins with `begin`.

    Raises:
        UserError: if no key or more than one key of `keys` matches.
    """
    found = [key for key in keys if key.startswith(begin)]
    if not found:
        told = f"{choose('trial', begin, keys[:5])}: `gapbench status` lists what has run"
        none = "nothing has run here: `gapbench run FILE` trains an ablation"
        raise UserError(f"{results}: {told if keys else none}")
    if len(found) > 1:
        raise UserError(f"trial {begin!r}: several keys begin like this: {', '.join(found[:5])}")
    return found[0]

"""Recording of a run in its folder: history, checkpoints, and the heartbeat."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gapbench.base.documents import parse, read_text
from gapbench.errors import UserError
from gapbench.runs.store import RunFolder
from gapbench.training import state
from gapbench.training.history import History
from gapbench.training.loop import Ask, Line, Metrics
from gapbench.training.setup import Training

BEAT_SECONDS = 5.0
PACE_SECONDS = 20.0  # of steps by which the time left is told: other trials come and go
LogScalar = Callable[[str, float, int], None]


class FolderKeeper:
    """Records one attempt in `folder`; on ranks other than 0 nothing is written.

    Args:
        folder: the run folder; `resume` continues from its checkpoint, if any.
        stop_asked: function that says whether a signal has asked the run to stop.
        log_scalar: function that receives (name, value, step), for Sacred.
        checkpoint_seconds: seconds between checkpoints, the most that a killed process loses.
        writes: whether this process writes, which is rank 0.
    """

    def __init__(
        self,
        folder: RunFolder,
        stop_asked: Callable[[], bool],
        log_scalar: LogScalar,
        checkpoint_seconds: float,
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self.stop_asked = stop_asked
        self.log_scalar = log_scalar
        self.checkpoint_seconds = checkpoint_seconds
        self.writes = writes
        self.history: History | None = None
        self.metrics: Metrics = {}
        self.seconds_before = 0.0
        self._began = self._saved = time.monotonic()
        self._beaten = 0.0
        self._marks: deque[tuple[float, int]] = deque()  # when how many steps were done
        self._cancelled = False

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all attempts."""
        return self.seconds_before + time.monotonic() - self._began

    def resume(self, training: Training) -> None:
        """Load the checkpoint, if any, and cut the history back to the checkpoint."""
        offset, digest = 0, None
        if self.writes:
            self.folder.sweep()
        if os.path.lexists(self.folder.checkpoint):
            saved = state.load(self.folder.checkpoint, training.device)
            with state.restoring(self.folder.checkpoint):
                training.load_state_dict(saved["training"])
                offset, digest = saved["history"], saved.get("history_sha256")
                self.seconds_before = saved["seconds"]
        self._marks.append((time.monotonic(), training.sparsifier.steps))
        if self.writes:
            self.history = History(self.folder.history, offset, digest)

    def line(self, line: Line) -> None:
        """Append a line to the history, and pass its numbers on to Sacred."""
        if self.history is not None:
            self.history.append(line)
        for name, value in _scalars(line).items():
            self.log_scalar(name, value, line["step"])

    def ask(self, training: Training) -> Ask:
        """Write heartbeats; return "save" if a checkpoint is due, and "stop" after a signal."""
        now = time.monotonic()
        if now - self._beaten >= BEAT_SECONDS:
            self._beat(training)
            self._cancelled = self.folder.cancelled.exists()
        if self.stop_asked() or self._cancelled:
            return "stop"
        return "save" if now - self._saved >= self.checkpoint_seconds else "go"

    def checkpoint(self, training: Training) -> None:
        """Write the state together with the length and digest of the history."""
        if self.history is None:
            return
        self.folder.require_owner()
        whole = {
            "training": training.state_dict(),
            "history": self.history.sync(),
            "history_sha256": self.history.digest,
            "seconds": self.seconds,
        }
        state.save(self.folder.checkpoint, whole, allow=self.folder.require_owner)
        self._saved = time.monotonic()

    def progress(self, training: Training, metrics: Metrics) -> None:
        """Write a heartbeat with the latest metrics."""
        self.metrics = metrics
        self._beat(training)

    def close(self) -> None:
        """Write the history to the disk and close it."""
        if self.history is not None:
            self.history.sync()
            self.history.close()

    def _beat(self, training: Training) -> None:
        self._beaten = time.monotonic()
        if not self.writes:
            return
        sparsifier = training.sparsifier
        rest = sparsifier.plan.epochs * training.per_epoch - sparsifier.steps
        per_step = self._pace(sparsifier.steps)
        self.folder.beat(
            epoch=sparsifier.steps / training.per_epoch,
            epochs=sparsifier.plan.epochs,
            phase=sparsifier.segment.phase.label,
            metric=dict(self.metrics),
            density=sum(sparsifier.weights.active().values())
            / sum(layer.numel for layer in sparsifier.layers),
            seconds_left=None if per_step is None else per_step * rest,
        )

    def _pace(self, steps: int) -> float | None:
        """Return the seconds of a step lately; None before the first one."""
        oldest = self._beaten - PACE_SECONDS
        while len(self._marks) > 1 and self._marks[1][0] <= oldest and self._marks[1][1] < steps:
            self._marks.popleft()
        began, before = self._marks[0]
        self._marks.append((self._beaten, steps))
        return (self._beaten - began) / (steps - before) if steps > before else None


def _scalars(line: Line) -> dict[str, float]:
    """Return the plain numbers of a history line by their names in Sacred."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, (int, float)) and name not in ("epoch", "step", "branch"):
            found[name if "/" in name else f"train/{name}"] = float(value)
    for moment in ("before", "after"):
        values: dict[str, Any] = line.get(moment) or {}
        found.update({f"{moment}_{line['event']}/{n}": float(v) for n, v in values.items()})
    if line.get("iou"):
        found["mask/iou"] = sum(line["iou"].values()) / len(line["iou"])
    return found


def read_history(path: Path) -> list[Line]:
    """Return the lines of a history file.

    Raises:
        UserError: if the file cannot be read or is damaged.
    """
    try:
        return [parse(line) for line in read_text(path).splitlines()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged: {error}; start over with --force") from None

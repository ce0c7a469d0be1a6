"""Display of running trials: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gapbench.cli.columns import GAP, Column, table_text
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import branches_of, look
from gapbench.runs.store import RunFolder, State

if TYPE_CHECKING:
    from types import TracebackType

NAME_WIDTH = 24  # characters that a trial's name has before columns give way
ALWAYS = ("key", "trial", "state")
FIRST_TO_GO = ("density", "phase", "resumed", "left", "epoch")
SETTLE_SECONDS = 20.0  # until the pace of trials side by side is theirs
KEY_DIGITS = 8  # of 16, as many as commands need to find a trial


@dataclass(frozen=True)
class View:
    """The state of one trial, from its run folder.

    Attributes:
        label: the trial's label.
        state: state from `RunFolder.state`, refined by SLURM's answer if SLURM was asked.
        status: the last heartbeat, or an empty mapping.
        job: id of the trial's SLURM job, if any.
        hint: SLURM's state and reason of the job.
    """

    label: str
    key: str
    state: State
    status: Mapping[str, Any]
    job: str | None = None
    hint: str = ""

    @classmethod
    def of(cls, folder: RunFolder, label: str) -> View:
        """Read a trial's state and heartbeat."""
        return cls(label, folder.path.name, folder.state(), folder.read_status())

    @classmethod
    def all_of(cls, labels: Mapping[RunFolder, str], queue: Queue) -> list[View]:
        """Read trials' states and heartbeats, and ask SLURM about submitted trials."""
        folders = list(labels)
        views = []
        for folder, seen in zip(folders, look(folders, queue), strict=True):
            status = folder.read_status()
            if seen.state == "running" and folder.state() != "running":
                branch = next(branches_of(folder), folder)  # what runs is in jobs of their own
                status = {**status, **branch.read_status()}
            key = folder.path.name
            views.append(cls(labels[folder], key, seen.state, status, seen.job, seen.hint))
        return views

    @property
    def resumed(self) -> str:
        """Number of times that the trial was resumed."""
        times = (self.status.get("attempt") or 1) - 1 - (self.status.get("legs") or 0)
        return f"{times}x" if times > 0 else ""

    @property
    def metric(self) -> str:
        """The first metric of the last heartbeat, as text."""
        metrics = self.status.get("metric") or {}
        return ", ".join(f"{name} {value:.2f}" for name, value in list(metrics.items())[:1])

    @property
    def epochs(self) -> str:
        """Epochs done and epochs planned, as text."""
        if not self.status.get("epochs"):
            return ""
        return f"{self.status.get('epoch') or 0:.1f}/{self.status['epochs']}"


def table_of(views: Sequence[View], width: int, title: str = "") -> Text:
    """Return a table of trials, one line per trial if the terminal is wide enough.

    Args:
        views: the trials.
        width: width of the terminal in characters. A narrow terminal drops density, phase, resumes,
            time left and epochs, in this order, so that names have room.
        title: title above the table.
    """
    rows = [_cells(view) for view in views]
    content = {h: max(len(row[h]) for row in rows) for h in (rows[0] if rows else ())}
    least = {h: max(len(h), content.get(h, 0)) for h in content or ALWAYS}
    least = {h: wide for h, wide in least.items() if content.get(h) or h in ALWAYS}
    least["trial"] = min(least["trial"], NAME_WIDTH)
    for heading in FIRST_TO_GO:
        if sum(least.values()) + GAP * (len(least) - 1) > width:
            least.pop(heading, None)
    columns = [Column(heading, wraps=heading == "trial") for heading in least]
    return table_text(columns, [[row[h] for h in least] for row in rows], width, title)


def _cells(view: View) -> dict[str, str]:
    density = view.status.get("density")
    return {
        "key": view.key[:KEY_DIGITS],
        "trial": view.label,
        "state": view.state,
        "resumed": view.resumed,
        "phase": str(view.status.get("phase") or ""),
        "epoch": view.epochs,
        "metric": view.metric,
        "density": "" if density is None else f"{density:.3f}",
        "left": duration(view.status.get("seconds_left")),
        "job": f"{view.job} {view.hint}".strip() if view.job else "",
    }


def duration(seconds: float | None) -> str:
    """Return a duration in seconds as text: 45s, 12m, 3h05m."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f}s"
    if seconds < 3600:
        return f"{seconds / 60:.0f}m"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"


class Progress:
    """Shows trials until they have ended; a context manager around calls of `show`.

    Args:
        console: console for the output.
        epochs: machine-epochs of every trial by key, for the estimate of the time left.

    Attributes:
        expected: the estimate that was printed, in seconds; None before that.
    """

    def __init__(self, console: Console, epochs: Mapping[str, int]) -> None:
        self.console = console
        self.total = len(epochs)
        self._epochs = epochs
        self._live = Live(console=console, refresh_per_second=2, transient=True)
        self._states: dict[str, State] = {}
        self._errors: set[str | None] = set()
        self.expected: float | None = None
        self._most = 0  # trials that ran side by side
        self._settled = math.inf  # when that becomes all that will

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def show(self, views: Sequence[View]) -> None:
        """Draw the current states of the trials; without a terminal print changes only."""
        if self.console.is_terminal:
            running = [view for view in views if view.state == "running"]
            self._live.update(table_of(running, self.console.width, self._summary(views)))
            return
        for view in views:
            if self._states.get(view.key) != view.state and view.state != "planned":
                self._states[view.key] = view.state
                self._line(view, views)
        self._forecast(views)

    def _forecast(self, views: Sequence[View]) -> None:
        """Print once the total time, as soon as the number of parallel trials has settled."""
        running = [view for view in views if view.state == "running"]
        if len(running) > self._most:
            self._most, self._settled = len(running), time.monotonic() + SETTLE_SECONDS
        left = self._left(views)
        if left is None or time.monotonic() < self._settled:
            return
        # one may have ended, and the next one not begun
        full = len(running) == self._most
        if full and all(view.status.get("seconds_left") for view in running):
            self._settled, self.expected = math.inf, left
            clock = time.strftime("%H:%M:%S")
            told = f"about {duration(left)} left for all trials, {len(running)} side by side"
            self.console.print(f"{clock} {'expected':<11} {told}", highlight=False, soft_wrap=True)

    def _line(self, view: View, views: Sequence[View]) -> None:
        detail = self._error(view) if view.state == "failed" else view.metric
        clock = time.strftime("%H:%M:%S")
        tail = f": {detail}" if detail else ""
        done = sum(other.state == "completed" for other in views)
        self.console.print(
            f"{clock} {view.state:<11} {view.label}{tail}  [{done}/{self.total} done]",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _error(self, view: View) -> str | None:
        """Return why a trial failed; an error that was shown before is not repeated in full."""
        error: str | None = view.status.get("error")
        if error and error in self._errors:
            return "the same error"
        self._errors.add(error)
        return error

    def _summary(self, views: Sequence[View]) -> str:
        counts = Counter(view.state for view in views)
        parts = [f"{counts['completed']}/{self.total} done"]
        parts += [f"{counts[s]} {s}" for s in ("running", "failed", "interrupted") if counts[s]]
        waiting = [view for view in views if view.state in ("planned", "queued")]
        if waiting:
            parts.append(f"{len(waiting)} waiting")
        if (left := self._left(views)) is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _left(self, views: Sequence[View]) -> float | None:
        waiting = [view for view in views if view.state in ("planned", "queued")]
        return seconds_left(views, [self._epochs[view.key] for view in waiting])


def seconds_left(views: Sequence[View], waiting: Sequence[int]) -> float | None:
    """Return an estimate of the seconds that all trials have left, from the measured epoch times.

    Args:
        views: the trials; running trials give the pace and the number of parallel trials.
        waiting: machine-epochs of the waiting trials.

    Returns:
        the seconds, or None as long as no running trial has a measured pace.
    """
    known = [v.status for v in views if v.state == "running" and v.status.get("seconds_left")]
    rest = [float(status["epochs"] - (status.get("epoch") or 0.0)) for status in known]
    seconds = [float(status["seconds_left"]) for status in known]
    if not known or not sum(rest):
        return None
    longest = max(seconds)
    whole = sum(seconds) + sum(waiting) * sum(seconds) / sum(rest)
    return max(longest, whole / len(known))

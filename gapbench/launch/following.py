"""Waiting for what was launched, with a bar for programs and notebooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gapbench.launch.jobs import Launch
from gapbench.runs.store import RunFolder

POLL_SECONDS = 0.25


def follow(
    started: Launch, others: Callable[[], bool], show: Callable[[], None] = lambda: None
) -> None:
    """Wait until what was started, and what `others` tells of, has ended.

    Args:
        started: what `Study.start` returned.
        others: says whether something else is still to be waited for.
        show: called at each look.
    """
    going = True
    while going:
        # another launcher may have been quicker with one of ours: it is waited for as well
        going = started.poll() or others()
        show()
        if going:
            time.sleep(POLL_SECONDS)


class EpochBar:
    """A bar of the machine-epochs that trials have done; a context manager around calls of `show`.

    It draws on a terminal and in a notebook, and nothing elsewhere.

    Args:
        epochs: machine-epochs of each trial.
        console: where it draws.
    """

    def __init__(self, epochs: Mapping[RunFolder, int], console: Console | None = None) -> None:
        console = console or Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("machine-epochs"), TimeRemainingColumn())  # fmt: skip
        drawn = console.is_terminal or console.is_jupyter
        self._epochs = epochs
        self._bar = Progress(*columns, console=console, disable=not drawn)
        self._task = self._bar.add_task(self._words(0), total=sum(epochs.values()))

    def __enter__(self) -> EpochBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Draw how far the trials are."""
        if self._bar.disable:
            return
        ended, done = 0, 0.0
        for folder, epochs in self._epochs.items():
            completed = folder.completed()
            ended += completed
            done += epochs if completed else folder.read_status().get("epoch") or 0.0
        self._bar.update(self._task, completed=int(done), description=self._words(ended))

    def _words(self, ended: int) -> str:
        return f"{ended} of {len(self._epochs)} trials"

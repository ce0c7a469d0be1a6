"""Waiting for trials that are about to end and for launched trials, and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gapbench.launch.jobs import Launch
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import SILENT, TrialState, look
from gapbench.runs.store import LOST_AFTER, RunFolder

POLL_SECONDS = 0.25
ENDING_SECONDS = 1.0


def settled(
    folders: Sequence[RunFolder], queue: Queue, tell: Callable[[str], None] = lambda _: None
) -> list[TrialState]:
    """Return the state of each trial, after waiting for trials that are about to end.

    So trials that were cancelled or have failed a moment ago can be run again. The wait is limited
    to the time for which a dead process still counts as alive.

    Args:
        folders: the trials' run folders.
        queue: the queue that answers for SLURM.
        tell: function that is called with a message if there is a wait.
    """
    deadline = time.monotonic() + LOST_AFTER
    seen = look(folders, queue)
    ending = _ending(seen)  # those that begin to end later have run meanwhile
    if ending:
        tell(f"waiting for jobs or processes that are about to end (trials: {len(ending)})")
    while ending and time.monotonic() < deadline:
        time.sleep(ENDING_SECONDS)
        seen = look(folders, queue)
        silent = {index for index, one in enumerate(seen) if one.hint == SILENT}
        ending &= _ending(seen) | silent
    return seen


def _ending(seen: Sequence[TrialState]) -> set[int]:
    return {index for index, one in enumerate(seen) if one.ending}


def follow(
    started: Launch, others: Callable[[], bool], show: Callable[[], None] = lambda: None
) -> None:
    """Wait until the launched trials have ended and `others` returns False.

    Args:
        started: the launch from `Study.start`.
        others: function that says whether other trials must be waited for.
        show: function that is called at each poll.
    """
    going = True
    while going:
        # another launcher may have taken one of these trials first: wait for that trial as well
        going = started.poll() or others()
        show()
        if going:
            time.sleep(POLL_SECONDS)


@contextmanager
def epoch_bar(
    epochs: Mapping[RunFolder, int], console: Console | None = None
) -> Iterator[Callable[[], None]]:
    """Show a progress bar of the trials' machine-epochs, on a terminal and in a notebook.

    Args:
        epochs: number of machine-epochs of each trial.
        console: console for the bar.

    Yields:
        a function that updates the bar; without a terminal or notebook, the function does nothing.
    """
    console = console or Console()
    if not (console.is_terminal or console.is_jupyter):
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("machine-epochs"), TimeRemainingColumn())  # fmt: skip

    def words(ended: int) -> str:
        return f"{ended} of {len(epochs)} trials"

    with Progress(*columns, console=console) as bar:
        task = bar.add_task(words(0), total=sum(epochs.values()))

        def show() -> None:
            ended, done = 0, 0.0
            for folder, own in epochs.items():
                completed = folder.completed()
                ended += completed
                done += own if completed else folder.read_status().get("epoch") or 0.0
            bar.update(task, completed=int(done), description=words(ended))

        yield show

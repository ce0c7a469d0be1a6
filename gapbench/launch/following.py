"""Waiting for what is about to end, and for what was launched, with a bar for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gapbench.launch.jobs import Launch
from gapbench.launch.queue import Queue
from gapbench.launch.submissions import TrialState, look
from gapbench.runs.store import LOST_AFTER, RunFolder

POLL_SECONDS = 0.25
ENDING_SECONDS = 1.0


def settled(
    folders: Sequence[RunFolder], queue: Queue, tell: Callable[[str], None] = lambda _: None
) -> list[TrialState]:
    """Return what is known of each trial, once all that is about to end has ended.

    So trials that were cancelled a moment ago, or have just failed, can be run again. What takes
    longer than a dead process counts as alive is returned as it is.

    Args:
        folders: of the trials.
        queue: for SLURM's word.
        tell: called with what is waited for, if anything is.
    """
    deadline = time.monotonic() + LOST_AFTER
    seen = look(folders, queue)
    ending = _ending(seen)  # those that begin to end later have run meanwhile
    if ending:
        tell(f"waiting for jobs or processes that are about to end (trials: {len(ending)})")
    while ending and time.monotonic() < deadline:
        time.sleep(ENDING_SECONDS)
        seen = look(folders, queue)
        ending &= _ending(seen)
    return seen


def _ending(seen: Sequence[TrialState]) -> set[int]:
    return {index for index, one in enumerate(seen) if one.ending}


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


@contextmanager
def epoch_bar(
    epochs: Mapping[RunFolder, int], console: Console | None = None
) -> Iterator[Callable[[], None]]:
    """Show a bar of the machine-epochs that trials have done, on a terminal and in a notebook.

    Args:
        epochs: machine-epochs of each trial.
        console: where it draws.

    Yields:
        what draws how far the trials are; it does nothing where nobody looks.
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

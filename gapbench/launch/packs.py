"""Packs: several trials in one SLURM job. A failed or cancelled trial does not stop the others.

After a stop, the end of the time limit or the death of a node, SLURM requeues the job, and the
unfinished trials continue. The run folders say which trials are unfinished, since a killed job
cannot write anything else.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from gapbench.execution.stopping import STOP_SIGNALS, StopSign
from gapbench.launch import attempts
from gapbench.launch.attempts import STALLED, STALLS
from gapbench.launch.jobs import Attempt, Job, own_signals
from gapbench.launch.submissions import Submission
from gapbench.runs import leases
from gapbench.runs.store import RunFolder

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

FORK = multiprocessing.get_context("fork")
LOOK_SECONDS = 0.5


class PackAttempt:
    """The callable of a job with several trials.

    Args:
        jobs: the trials, each of one process.
        submission: name of the submission that claims the trials.
        at_a_time: number of trials that are trained in parallel, each in its own process; None: all
            trials in one process, as many in parallel as fit its GPU.
    """

    def __init__(self, jobs: Sequence[Job], submission: str, at_a_time: int | None) -> None:
        self.trials = [PackedTrial(job, submission) for job in jobs]
        self.at_a_time = at_a_time
        self.stalls = 0

    def __call__(self) -> str:
        """Run the open trials; exit with an error code if a trial failed, for SLURM's records."""
        attempts.forget_half_written_pickles(first=True)
        todo = [trial for trial in self.trials if trial.open()]
        before = _progress(todo)
        stop = StopSign()
        with own_signals():
            stop.raised_by_signals()
            codes = (
                run_as_lanes(todo, stop)
                if self.at_a_time is None
                else run_trials(todo, self.at_a_time, stop)
            )
        left = self._left(todo, len(codes), _progress(todo) != before)
        if left and attempts.not_ended_by_others():
            signal.raise_signal(signal.SIGUSR2)  # submitit requeues the job, and this process ends
        if any(codes) or any(trial.run.state() == "failed" for trial in self.trials):
            sys.exit(1)
        return "interrupted" if left else "completed"

    def _left(self, todo: Sequence[PackedTrial], begun: int, moved: bool) -> list[PackedTrial]:
        """Return the trials that a requeued job must continue.

        If several jobs in a row make no progress, the trials that they began are marked as failed.

        Args:
            todo: the trials of this job, in order.
            begun: number of trials that have begun.
            moved: whether any trial made progress.
        """
        halted = [
            trial for trial in todo[:begun] if trial.open() and trial.run.state() == "interrupted"
        ]
        later = [trial for trial in todo[begun:] if trial.open()]
        self.stalls = 0 if moved or not halted + later else self.stalls + 1
        if self.stalls < STALLS:
            return halted + later
        self.stalls = 0
        for trial in halted or later:
            trial.run.end_attempt("failed", STALLED)
        return later if halted else []

    def checkpoint(self) -> DelayedSubmission:
        """Return the submission for the requeue: this object, since all state is in files."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class PackedTrial(Attempt):
    """An attempt of one trial of a pack, in its own process.

    Args:
        job: the trial.
        submission: name of the submission that must still claim the trial when its turn comes.
    """

    def __init__(self, job: Job, submission: str) -> None:
        super().__init__(job)
        self.submission = submission

    def __call__(self) -> str:
        """Run one attempt, unless the trial has left the pack meanwhile."""
        return super().__call__() if self.wanted() else "elsewhere"

    def wanted(self) -> bool:
        """Say whether the trial still belongs to this job, once its turn has come."""
        return self.open() and attempts.wait_for_dead_owner(self.run)

    @property
    def run(self) -> RunFolder:
        """The trial's run folder."""
        return RunFolder(Path(self.folder))

    def open(self) -> bool:
        """Say whether the job must still run the trial."""
        run = self.run
        mine = Submission(run.path.parent.parent, self.submission).holds(run)
        return mine and not (run.completed() or run.cancelled.exists() or self.failed_here())

    def failed_here(self) -> bool:
        """Say whether the trial has failed in this job, perhaps before a requeue."""
        here = self.run.read_status().get("slurm_job") == leases.slurm_job()
        return here and self.run.state() == "failed"


def run_trials(
    trials: Sequence[PackedTrial], at_a_time: int, stop: Callable[[], bool]
) -> list[int]:
    """Train trials one after another or in parallel, until all have ended or `stop` says so.

    Each trial has its own process, so that a killed trial does not end other trials.

    Args:
        trials: the trials in the order of their start.
        at_a_time: number of parallel processes.
        stop: function that is asked twice a second whether to stop; running trials then write a
            checkpoint and end.

    Returns:
        exit codes of the trials that have begun; a code other than 0 means a failure.
    """
    if trials:
        trials[0].set_variables()  # before torch looks
        import torch  # noqa: F401 - once, not in each process: it takes seconds

        import gapbench.execution.sacred_run  # noqa: F401
    waiting = deque(trials)
    begun: list[BaseProcess] = []
    running: list[BaseProcess] = []
    while running or (waiting and not stop()):
        while waiting and len(running) < at_a_time and not stop():
            running.append(_start(waiting.popleft()))
            begun.append(running[-1])
        wait([process.sentinel for process in running], LOOK_SECONDS)
        for process in running if stop() else ():
            process.terminate()
        running = [process for process in running if process.is_alive()]
    return [process.exitcode or 0 for process in begun]


def run_as_lanes(trials: Sequence[PackedTrial], stop: Callable[[], bool]) -> list[int]:
    """Train trials in parallel in this process, which has a GPU; see `run_trials`."""
    if not trials:
        return []
    trials[0].set_variables()  # before torch looks
    from gapbench.execution.lanes import LaneTrial, run_lanes

    lanes = [LaneTrial(Path(trial.folder), trial.ablation, trial.wanted) for trial in trials]
    return [int(state == "failed") for state in run_lanes(lanes, stop=stop).values()]


def _start(trial: PackedTrial) -> BaseProcess:
    """Start the process of a trial; block signals until the process has its own handlers."""
    process = FORK.Process(target=_run, args=(trial,), name=Path(trial.folder).name)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return process


def _run(trial: PackedTrial) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # until the trial runs: the pack repeats itself
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    sys.exit(int(trial() == "failed"))


def _progress(trials: Sequence[PackedTrial]) -> list[object]:
    return [attempts.progress(trial.run) for trial in trials]

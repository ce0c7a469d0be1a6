"""The work of SLURM jobs: attempts that can be requeued, legs of a chain, and branches."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gapbench.base.documents import require_real
from gapbench.launch import queue
from gapbench.launch.chains import Branches, Train
from gapbench.launch.jobs import Attempt, Job, own_signals
from gapbench.launch.submissions import jobs_of
from gapbench.runs import leases
from gapbench.runs.store import LOST_AFTER, RunFolder, TakenOver

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from gapbench.execution.trial_run import Execution

OWNER_SECONDS = 5.0
STALLS = 3  # attempts in a row without one optimiser step, after which a job is not requeued
STALLED = f"{STALLS} jobs in a row ended before one training step: give more hours"


class SlurmAttempt(Attempt):
    """An attempt in a SLURM job; an interrupted attempt asks SLURM to requeue the job."""

    stalls = 0

    def __call__(self) -> str:
        """Run one attempt; exit with an error code after a failure, for SLURM's records.

        Rank 0 of several ranks also exits with an error code if it cannot begin, which ends the
        other ranks.
        """
        import submitit

        first = submitit.JobEnvironment().global_rank == 0
        forget_half_written_pickles(first)
        if not first:
            return super().__call__()
        folder = RunFolder(Path(self.folder))
        before = progress(folder)
        state = super().__call__() if wait_for_dead_owner(folder) else "elsewhere"
        if state == "interrupted":
            self.stalls = 0 if progress(folder) != before else self.stalls + 1
            if self._wanted_again(folder):
                # after the safe point submitit may requeue, from its signal handler
                signal.raise_signal(signal.SIGUSR2)
        if state == "failed" or (self.ranks > 1 and state in ("elsewhere", "taken over")):
            sys.exit(1)
        return state

    def checkpoint(self) -> DelayedSubmission:
        """Return the submission for the requeue: this object, since all state is in files."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _wanted_again(self, folder: RunFolder) -> bool:
        """Say whether this job must ask for a requeue: nobody else has ended the job."""
        if folder.cancelled.exists():
            return False
        if self.stalls >= STALLS:
            folder.end_attempt("failed", STALLED)
            return False
        return not_ended_by_others()


def not_ended_by_others() -> bool:
    """Say whether this job is running according to SLURM."""
    job = leases.slurm_job()
    listed = ((job and queue.listed([job.partition("_")[0]])) or {}).get(job or "")
    # cancelled jobs are COMPLETING, and those that SLURM requeues by itself too, or PENDING
    ended = (*queue.FINAL, "COMPLETING", "PENDING", "PREEMPTED")
    return listed is None or listed.state not in ended


def progress(folder: RunFolder) -> object:
    """Return a value that changes with the progress of the trial or of one of its branches."""
    places = [folder, *(branch for _, _, branch in folder.branches())]
    return [(str(place.path), place.read_status().get("epoch")) for place in places]


def wait_for_dead_owner(folder: RunFolder) -> bool:
    """Wait until an owner on another host counts as dead; return False if the owner is alive.

    The node of an owner may have died a moment ago, so that its last heartbeat is recent.
    """
    deadline = time.monotonic() + LOST_AFTER + 2 * OWNER_SECONDS
    while (owner := folder.living_owner()) is not None:
        job = owner.get("slurm_job")
        answer = queue.listed([job.partition("_")[0]]) if job else None
        listed = (answer or {}).get(job or "")
        if leases.is_here(owner) or (listed is not None and listed.state == "RUNNING"):
            return False
        if answer is not None and (listed is None or not listed.lives):
            leases.remove(folder.owner, owner)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(OWNER_SECONDS)
    return True


def forget_half_written_pickles(first: bool) -> None:
    """Remove partial files of a killed process, which submitit refuses to overwrite.

    Args:
        first: whether this process is rank 0; each rank writes a result, but only rank 0 requeues.
    """
    from submitit import JobEnvironment

    paths = JobEnvironment().paths
    for pickle in (
        (paths.submitted_pickle, paths.result_pickle) if first else (paths.result_pickle,)
    ):
        pickle.with_suffix(pickle.suffix + ".save_tmp").unlink(missing_ok=True)


class LegAttempt(SlurmAttempt):
    """An attempt that hands the trial over to the next job of its chain.

    Args:
        job: the trial.
        ranks: number of processes that train the trial together.
        leg: the part of the plan that this job trains.
        first: whether this is the first job of the chain; later jobs skip a failed trial.
    """

    def __init__(self, job: Job, ranks: int, leg: Train, first: bool) -> None:
        super().__init__(job, ranks)
        self.leg = leg
        self.first = first

    def __call__(self) -> str:
        """Run the leg, unless an earlier leg has failed; see `SlurmAttempt`."""
        folder = RunFolder(Path(self.folder))
        if not self.first and folder.state() == "failed":
            print("an earlier job of this chain has failed: see its log")
            sys.exit(1)
        for _, _, place in folder.branches():
            wait_for_dead_owner(place)
        try:
            return super().__call__()
        finally:
            if folder.state() == "failed":
                _end_chain(folder)

    def execution(self) -> Execution:
        """Return the settings of the attempt's execution."""
        from gapbench.execution.trial_run import Execution

        return Execution(self.branches, apart=self.leg.apart, until=self.leg.until)


class BranchAttempt(SlurmAttempt):
    """One branch of a P-GaP round in its own job; the merging job finishes an unfinished branch.

    Args:
        job: the trial.
        ranks: number of processes that train the branch together.
        part: index of the round among the plan's parts.
        branch: index of the branch in the round.
    """

    def __init__(self, job: Job, ranks: int, part: int, branch: int) -> None:
        super().__init__(job, ranks)
        self.part = part
        self.branch = branch

    def __call__(self) -> str:
        """Train the branch; exit with an error code after a failure, for SLURM's records."""
        import submitit

        self.set_variables()
        from gapbench.errors import UserError
        from gapbench.execution.branches import RESULT, branch_folder

        folder = RunFolder(Path(self.folder))
        place = branch_folder(folder, self.part, self.branch)
        if folder.cancelled.exists() or folder.completed() or (place.path / RESULT).exists():
            return "elsewhere"
        first = submitit.JobEnvironment().global_rank == 0
        forget_half_written_pickles(first)
        if first:
            require_real(place.path, folder.path)
            place.path.mkdir(parents=True, exist_ok=True)
        if first and not wait_for_dead_owner(place):
            sys.exit("another copy of this branch is alive")
        before = progress(place)
        try:
            state = self._train(place, first)
        except UserError as error:
            sys.exit(str(error))
        if first and state == "interrupted":
            self.stalls = 0 if progress(place) != before else self.stalls + 1
            if self.stalls < STALLS and not folder.cancelled.exists() and not_ended_by_others():
                signal.raise_signal(signal.SIGUSR2)
        return state

    def _train(self, place: RunFolder, first: bool) -> str:
        """Train on all ranks; rank 0 owns the branch's folder."""
        from gapbench.execution.branches import run_branch
        from gapbench.execution.stopping import StopSign
        from gapbench.launch.ranks import joined
        from gapbench.training.loop import Interrupted

        stop, seconds = StopSign(), self.execution().checkpoint_seconds
        together = joined() if self.ranks > 1 else nullcontext()
        with own_signals(), place.owned() if first else nullcontext(), together:
            stop.raised_by_signals()
            try:
                run_branch(RunFolder(Path(self.folder)), place, seconds, stop)
            except Interrupted:
                return "interrupted"
            except TakenOver:
                return "taken over"
        return "completed"


def _end_chain(folder: RunFolder) -> None:
    """Cancel the jobs that wait for this job, since they have nothing to continue from."""
    others = set(jobs_of(folder)) - {leases.slurm_job() or ""}
    with suppress(queue.SlurmError):
        queue.cancel(others)


def attempts_of(job: Job, ranks: int, leg: Train | Branches, first: bool) -> list[SlurmAttempt]:
    """Return the attempts of one leg's jobs: one attempt, or one attempt per branch of a round."""
    if isinstance(leg, Train):
        return [LegAttempt(job, ranks, leg, first)]
    return [BranchAttempt(job, ranks, leg.part, branch) for branch in range(leg.count)]

"""Trials on a SLURM cluster: one throttled submitit array for each shape of job."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapbench.errors import UserError
from gapbench.experiments import marks
from gapbench.experiments.marks import read_json
from gapbench.experiments.store import LOST_AFTER, RunFolder
from gapbench.launch import profile, queue
from gapbench.launch.jobs import Attempt, Job, executor
from gapbench.launch.profile import Profile, Shape
from gapbench.launch.queue import HOPELESS, Listed, Queue, SlurmError
from gapbench.launch.submissions import Submission, look

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL_SECONDS = 2.0
SLOWEST_POLL_SECONDS = 30.0
SETTLE_SECONDS = 1.5
OWNER_SECONDS = 5.0
CLUSTER_VARIABLES = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
STALLS = 3  # attempts in a row without one optimiser step, after which a job is not requeued


@executor("slurm")
class SlurmLaunch:
    """Submits jobs and follows them; they go on when the launcher ends.

    Args:
        jobs: trials to run; those that another launcher has submitted are left to it.
        parallel: how many of an array run side by side; the profile's number by default.
        profile: the cluster profile's file; see `gapbench.launch.profile.find`.

    Raises:
        UserError: with SLURM's reason, if it refuses; then nothing stays submitted.
    """

    def __init__(
        self, jobs: Sequence[Job], parallel: int | None, profile: Path | None = None
    ) -> None:
        queue.require_usable()
        self._queue = Queue()
        self._folders = [RunFolder(job.folder) for job in jobs]
        self._arrays = submit(jobs, parallel, profile, self._queue)
        self._pause = POLL_SECONDS
        self._next = time.monotonic()
        self._refuse_hopeless()

    def poll(self) -> bool:
        """Say whether a trial still waits or runs; SLURM is asked more and more rarely."""
        waiting = [f for f in self._folders if f.state() not in ("completed", "failed")]
        if not waiting:
            return False
        if time.monotonic() < self._next:
            return True
        self._pause = min(self._pause * 1.2, SLOWEST_POLL_SECONDS)
        self._next = time.monotonic() + self._pause
        self._refuse_hopeless()
        return any(sight.state in ("queued", "running") for sight in look(waiting, self._queue))

    def stop(self) -> str:
        """Leave the jobs to SLURM."""
        return "the jobs go on; see `gapbench status --watch`, and `gapbench cancel` stops them"

    def _refuse_hopeless(self) -> None:
        """Cancel everything if SLURM has accepted a job that it will never start.

        Raises:
            UserError: with SLURM's reason.
        """
        if not _hopeless(self._queue.ask(self._arrays)):
            return
        time.sleep(SETTLE_SECONDS)  # the first reason of a new job may be a general one
        hopeless = _hopeless(Queue(0).ask(self._arrays))
        if hopeless:
            with contextlib.suppress(SlurmError):
                queue.cancel(self._arrays)
            raise UserError(f"SLURM will never start job {hopeless[0].job}: {hopeless[0].reason}")


def _hopeless(answer: dict[str, Listed] | None) -> list[Listed]:
    return [
        listed
        for listed in (answer or {}).values()
        if listed.reason in HOPELESS or listed.reason.endswith("PerJobLimit")
    ]


def submit(jobs: Sequence[Job], parallel: int | None, file: Path | None, asked: Queue) -> list[str]:
    """Submit one array for each shape; return the ids of the arrays.

    Raises:
        UserError: with SLURM's reason; what was submitted before is cancelled.
    """
    chosen = profile.read(profile.find(file))
    if parallel is not None:
        chosen = chosen.model_copy(update={"parallel": parallel})
    shapes: dict[Shape, list[Job]] = {}
    for job in jobs:
        threads = job.threads * job.branches
        shapes.setdefault(profile.shape(job.resources, threads, chosen), []).append(job)
    arrays: list[str] = []
    for shape, alike in shapes.items():
        try:
            arrays += _submit_array(alike, shape, chosen, asked)
        except (SlurmError, OSError) as error:
            with contextlib.suppress(SlurmError):
                queue.cancel(arrays)
            raise UserError(f"SLURM refuses: {error}") from None
    return arrays


def _submit_array(jobs: Sequence[Job], shape: Shape, chosen: Profile, asked: Queue) -> list[str]:
    """Submit trials of one shape, and return the array's id if any was left to submit."""
    by_folder = {job.folder: job for job in jobs}
    submission = Submission(jobs[0].folder.parent.parent)
    claimed = submission.claim([RunFolder(job.folder) for job in jobs], asked)
    if not claimed:
        return []
    attempts = [SlurmAttempt(by_folder[folder.path], shape.ranks) for folder in claimed]
    try:
        handles = _sbatch(submission, attempts, shape, chosen, jobs[0].ablation)
    except BaseException:
        submission.withdraw(claimed)
        raise
    job = str(handles[0].job_id).partition("_")[0]
    submission.submitted(job, len(claimed))
    return [job]


def _sbatch(
    submission: Submission,
    attempts: Sequence[SlurmAttempt],
    shape: Shape,
    chosen: Profile,
    name: str,
) -> list[Any]:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    said = io.StringIO()  # submitit prints what sbatch says; the user is told once, by us
    try:
        slurm = submitit.SlurmExecutor(submission.folder, max_num_timeout=sys.maxsize)
        slurm.update_parameters(
            **profile.parameters(shape, chosen, name), array_parallelism=chosen.parallel
        )
        with contextlib.redirect_stderr(said), _outside_of_jobs():
            return slurm.submit_array(attempts)
    except (FailedJobError, FailedSubmissionError) as error:
        raise SlurmError(queue.reason(str(error) or said.getvalue())) from None


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the job that this process may run in: sbatch would pass its limits on."""
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("SLURM_", "SRUN_", "SUBMITIT_")) and name not in CLUSTER_VARIABLES
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


class SlurmAttempt(Attempt):
    """An attempt inside a SLURM job, which hands itself back to be requeued when interrupted."""

    stalls = 0

    def __call__(self) -> str:
        """Run one attempt; leave with an error code if it failed, for SLURM's records.

        The first of several ranks leaves so too where it could not begin, which ends the others.
        """
        import submitit

        if submitit.JobEnvironment().global_rank > 0:
            return super().__call__()
        folder = RunFolder(Path(self.folder))
        _forget_half_written_pickles()
        before = _epoch(folder)
        state = super().__call__() if _wait_for_dead_owner(folder) else "elsewhere"
        if state == "interrupted":
            self.stalls = 0 if _epoch(folder) != before else self.stalls + 1
            if self._wanted_again(folder):
                # the safe point is behind us: now submitit may requeue, from its signal handler
                signal.raise_signal(signal.SIGUSR2)
        if state == "failed" or (self.ranks > 1 and state in ("elsewhere", "taken over")):
            sys.exit(1)
        return state

    def checkpoint(self) -> DelayedSubmission:
        """Return what is to be run after the requeue: the same, since all state is in files."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _wanted_again(self, folder: RunFolder) -> bool:
        """Say whether this job has to ask for a requeue, that is: nobody else has ended it."""
        if folder.cancelled.exists():
            return False
        if self.stalls >= STALLS and self.branches == 1:
            folder.end_attempt(
                "failed", f"{STALLS} jobs in a row ended before one training step: give more hours"
            )
            return False
        job = marks.slurm_job()
        listed = ((job and queue.listed([job.partition("_")[0]])) or {}).get(job or "")
        # cancelled jobs are COMPLETING, and those that SLURM requeues by itself too, or PENDING
        return listed is None or listed.state not in (*queue.FINAL, "COMPLETING", "PENDING")


def _epoch(folder: RunFolder) -> object:
    return (read_json(folder.status) or {}).get("epoch")


def _wait_for_dead_owner(folder: RunFolder) -> bool:
    """Wait until an owner on another host counts as dead; say False if it is alive.

    A trial's node may have died a moment ago, so that its heart seems to beat still.
    """
    deadline = time.monotonic() + LOST_AFTER + 2 * OWNER_SECONDS
    while (owner := folder.living_owner()) is not None:
        job = owner.get("slurm_job")
        answer = queue.listed([job.partition("_")[0]]) if job else None
        listed = (answer or {}).get(job or "")
        if marks.is_here(owner) or (listed is not None and listed.state == "RUNNING"):
            return False
        if answer is not None and (listed is None or not listed.lives):
            marks.remove(folder.owner, owner)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(OWNER_SECONDS)
    return True


def _forget_half_written_pickles() -> None:
    """Remove what a killed process has left: submitit refuses to write where it lies."""
    from submitit import JobEnvironment

    paths = JobEnvironment().paths
    for pickle in (paths.submitted_pickle, paths.result_pickle):
        pickle.with_suffix(pickle.suffix + ".save_tmp").unlink(missing_ok=True)

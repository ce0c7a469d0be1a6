"""Trials on a SLURM cluster: one throttled submitit array for each shape of job."""

from __future__ import annotations

import contextlib
import io
import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gapbench.base.children import started_safely
from gapbench.errors import UserError
from gapbench.launch import profile, queue
from gapbench.launch.attempts import SlurmAttempt, attempts_of
from gapbench.launch.chains import Leg, legs
from gapbench.launch.jobs import Job, executor
from gapbench.launch.profile import Profile, Shape
from gapbench.launch.queue import HOPELESS, Listed, Queue, SlurmError
from gapbench.launch.submissions import Submission, look
from gapbench.runs.store import RunFolder

POLL_SECONDS = 2.0
SLOWEST_POLL_SECONDS = 30.0
SETTLE_SECONDS = 1.5


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
        return any(seen.state in ("queued", "running") for seen in look(waiting, self._queue))

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
    """Submit an array for each shape, or several for many trials; return the ids of the arrays.

    Raises:
        UserError: with SLURM's reason; what was submitted before is cancelled.
    """
    if pattern := re.search(r"[%\\]", str(jobs[0].folder)):
        raise UserError(
            f"{jobs[0].folder.parent.parent}: SLURM reads {pattern[0]} in the path of a log as a "
            "pattern: name another folder with --results"
        )
    most = queue.most_in_array()
    chosen = profile.read(profile.find(file))
    if parallel is not None:
        chosen = chosen.model_copy(update={"parallel": parallel})
    shapes: dict[Shape, list[Job]] = {}
    chained: list[tuple[Job, Shape, tuple[Leg, ...]]] = []
    for job in jobs:
        alone = profile.shape(job.resources, job.threads, chosen, job.ranks)
        parts = _legs(job, alone, chosen)
        if len(parts) > 1:
            chained.append((replace(job, branches=1), alone, parts))
        else:
            shape = profile.shape(job.resources, job.threads * job.branches, chosen, job.ranks)
            shapes.setdefault(shape, []).append(job)
    submitted: list[str] = []
    lasts: list[str] = []
    try:
        for shape, alike in shapes.items():
            for first in range(0, len(alike), most):
                some = alike[first : first + most]
                submitted += _submit_array(some, shape, chosen, asked)
        for job, shape, parts in chained:
            # as many chains side by side as an array has trials
            after = lasts[-chosen.parallel] if len(lasts) >= chosen.parallel else None
            bases = _submit_chain(job, shape, parts, chosen, asked, after)
            submitted += bases
            lasts += bases[-1:]
    except (SlurmError, OSError) as error:
        with contextlib.suppress(SlurmError):
            queue.cancel(submitted)
        who = "SLURM refuses" if isinstance(error, SlurmError) else "cannot submit"
        raise UserError(f"{who}: {error}") from None
    return submitted


def _legs(job: Job, shape: Shape, chosen: Profile) -> tuple[Leg, ...]:
    if not chosen.chain or job.plan is None:
        return ()
    done = RunFolder(job.folder).read_status().get("epoch") or 0
    return legs(job.plan, math.ceil(job.resources.hours / shape.resources.hours), done)


def _submit_array(jobs: Sequence[Job], shape: Shape, chosen: Profile, asked: Queue) -> list[str]:
    """Submit trials of one shape, and return the array's id if any was left to submit."""
    by_folder = {job.folder: job for job in jobs}
    submission = Submission(jobs[0].folder.parent.parent)
    claimed = submission.claim([RunFolder(job.folder) for job in jobs], asked)
    if not claimed:
        return []
    attempts = [SlurmAttempt(by_folder[folder.path], shape.ranks) for folder in claimed]
    ids: list[str] = []
    try:
        ids = _sbatch(submission, attempts, shape, chosen, jobs[0].ablation)
        submission.submitted(_base(ids[0]), len(ids))
    except BaseException:
        _take_back(submission, claimed, ids)
        raise
    return [_base(ids[0])]


def _take_back(submission: Submission, claimed: Sequence[RunFolder], ids: Sequence[str]) -> None:
    """Cancel what was submitted, and withdraw the claims."""
    with contextlib.suppress(SlurmError):
        queue.cancel({_base(name) for name in ids})
    submission.withdraw(claimed)


def _submit_chain(
    job: Job,
    shape: Shape,
    parts: Sequence[Leg],
    chosen: Profile,
    asked: Queue,
    after: str | None,
) -> list[str]:
    """Submit all jobs of one trial, each after those before it, and return their base ids.

    A job waits for the end of the one before it, not for its success: what that one has left
    undone, the next one does.

    Args:
        job: the trial.
        shape: of each of its jobs.
        parts: its legs.
        chosen: profile of the cluster.
        asked: for what SLURM says about earlier claims.
        after: the job that the first one waits for, or None.
    """
    folder = RunFolder(job.folder)
    submission = Submission(job.folder.parent.parent)
    if not submission.claim([folder], asked):
        return []
    ids: list[str] = []
    bases: list[str] = []
    try:
        for number, leg in enumerate(parts):
            attempts = attempts_of(job, shape.ranks, leg, first=number == 0)
            before = bases[-1] if bases else after
            waits = None if before is None else f"afterany:{before}"
            ids += _sbatch(submission, attempts, shape, chosen, job.ablation, waits)
            bases.append(_base(ids[-1]))
            submission.chained(ids)  # each time: the launcher may be killed between two of them
    except BaseException:
        _take_back(submission, [folder], ids)
        raise
    return bases


def _base(name: str) -> str:
    """Return the id that all tasks of an array share."""
    return name.partition("_")[0]


def _sbatch(
    submission: Submission,
    attempts: Sequence[SlurmAttempt],
    shape: Shape,
    chosen: Profile,
    name: str,
    after: str | None = None,
) -> list[str]:
    """Submit one array, or one job if there is but one attempt; return the ids in order."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    said = io.StringIO()  # submitit prints what sbatch says; the user is told once, by us
    try:
        slurm = submitit.SlurmExecutor(submission.folder, max_num_timeout=sys.maxsize)
        slurm.update_parameters(
            **profile.parameters(shape, chosen, name, after), array_parallelism=chosen.parallel
        )
        with contextlib.redirect_stderr(said), _outside_of_jobs():
            return [str(handle.job_id) for handle in slurm.submit_array(attempts)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise SlurmError(queue.reason(str(error) or said.getvalue())) from None


def _outside_of_jobs() -> contextlib.AbstractContextManager[None]:
    """Hide what is not in the profile and would decide about the job.

    That is the job that this process may run in, whose limits sbatch would pass on, and the
    options of SLURM's commands that stand in variables of the user's shell: they beat the script's.
    """
    return started_safely(queue.VARIABLES, queue.CLUSTER_VARIABLES)

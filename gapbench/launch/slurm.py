"""Execution of trials on a SLURM cluster: a throttled submitit array for each shape of job."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gapbench.base.children import started_safely
from gapbench.errors import UserError
from gapbench.launch import profile, queue
from gapbench.launch.arrangement import (
    Arrangement,
    Chain,
    Pack,
    arrange,
    counted,
    side_by_side,
)
from gapbench.launch.attempts import SlurmAttempt, attempts_of
from gapbench.launch.jobs import Job, executor
from gapbench.launch.lanes import as_lanes
from gapbench.launch.packs import PackAttempt
from gapbench.launch.profile import Profile, Shape
from gapbench.launch.queue import HOPELESS, Listed, Queue, SlurmError
from gapbench.launch.submissions import Submission, look
from gapbench.runs.store import RunFolder

POLL_SECONDS = 2.0
SLOWEST_POLL_SECONDS = 30.0
SETTLE_SECONDS = 1.5


@executor("slurm")
class SlurmLaunch:
    """Submits jobs and follows them; the jobs continue when the launcher ends.

    Args:
        jobs: the trials to run; trials that another launcher has submitted are skipped.
        parallel: number of jobs of an array that run in parallel; by default the profile's number.
        profile: file of the cluster profile; see `gapbench.launch.profile.find`.

    Raises:
        UserError: with SLURM's reason, if SLURM refuses; then no job stays submitted.
    """

    def __init__(
        self, jobs: Sequence[Job], parallel: int | None, profile: Path | None = None
    ) -> None:
        queue.require_usable()
        self._queue = Queue()
        self._folders = [RunFolder(job.folder) for job in jobs]
        submitted = submit(jobs, parallel, profile, self._queue)
        self._arrays = submitted.arrays
        self.told = counted(submitted.trials, submitted.jobs) if submitted.jobs else ""
        self._pause = POLL_SECONDS
        self._next = time.monotonic()
        self._refuse_hopeless()

    def poll(self) -> bool:
        """Say whether a trial still waits or runs; ask SLURM more and more rarely."""
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
        return (
            "the jobs go on: `gapbench status --watch` shows the jobs, `gapbench cancel` stops them"
        )

    def _refuse_hopeless(self) -> None:
        """Cancel all jobs if SLURM has accepted a job that SLURM will never start.

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
            told = f"job {hopeless[0].job}: {hopeless[0].reason}: change the profile"
            raise UserError(f"SLURM will never start {told}")


def _hopeless(answer: dict[str, Listed] | None) -> list[Listed]:
    return [
        listed
        for listed in (answer or {}).values()
        if listed.reason in HOPELESS or listed.reason.endswith("PerJobLimit")
    ]


@dataclass
class Submitted:
    """The submitted jobs.

    Attributes:
        arrays: ids of arrays and of single jobs.
        jobs: number of jobs.
        trials: number of trials of the jobs.
    """

    arrays: list[str] = field(default_factory=list)
    jobs: int = 0
    trials: int = 0

    def add(self, arrays: Sequence[str], jobs: int, trials: int) -> None:
        """Count further jobs."""
        self.arrays += arrays
        self.jobs += jobs
        self.trials += trials


def arranged(jobs: Sequence[Job], parallel: int | None, file: Path | None) -> Arrangement:
    """Return the arrangement of trials as jobs, without a submission; arguments as for a launch.

    Raises:
        UserError: if the profile is invalid.
    """
    return arrange(jobs, _profile(file, parallel))


def _profile(file: Path | None, parallel: int | None) -> Profile:
    chosen = profile.read(profile.find(file))
    return chosen if parallel is None else chosen.model_copy(update={"parallel": parallel})


def submit(jobs: Sequence[Job], parallel: int | None, file: Path | None, asked: Queue) -> Submitted:
    """Submit an array for each shape, or several arrays for many jobs.

    Raises:
        UserError: with SLURM's reason, if SLURM refuses; jobs submitted before are cancelled.
    """
    if pattern := re.search(r"[%\\]", str(jobs[0].folder)):
        raise UserError(
            f"{jobs[0].folder.parent.parent}: SLURM reads {pattern[0]} in the path of a log as a "
            "pattern: name another folder with --results"
        )
    most = queue.most_in_array()
    chosen = _profile(file, parallel)
    arrangement = arrange(jobs, chosen)
    submitted = Submitted()
    lasts: list[str] = []
    try:
        for shape, packs in arrangement.arrays.items():
            for first in range(0, len(packs), most):
                _submit_array(packs[first : first + most], shape, chosen, asked, submitted)
        for chain in arrangement.chains:
            # as many parallel chains as an array has trials
            after = lasts[-chosen.parallel] if len(lasts) >= chosen.parallel else None
            lasts += _submit_chain(chain, chosen, asked, after, submitted)[-1:]
    except (SlurmError, OSError) as error:
        with contextlib.suppress(SlurmError):
            queue.cancel(submitted.arrays)
        who = "SLURM refuses" if isinstance(error, SlurmError) else "cannot submit"
        words = "change the profile, or use --executor local"
        raise UserError(f"{who}: {error}: {words}") from None
    return submitted


def _submit_array(
    packs: Sequence[Pack], shape: Shape, chosen: Profile, asked: Queue, submitted: Submitted
) -> None:
    """Submit the jobs of one shape, if any is left to submit."""
    by_folder = {job.folder: job for pack in packs for job in pack}
    submission = Submission(packs[0][0].folder.parent.parent)
    folders = [[RunFolder(job.folder) for job in pack] for pack in packs]
    claimed = submission.claim_packs(folders, asked)
    if not claimed:
        return
    trials = [[by_folder[folder.path] for folder in pack] for pack in claimed]
    widths = [min(len(pack), side_by_side(pack[0], shape, chosen)) for pack in trials]
    attempts: list[SlurmAttempt | PackAttempt] = [
        SlurmAttempt(pack[0], shape.ranks)
        if len(pack) == 1
        else PackAttempt(pack, submission.name, None if as_lanes(pack) else width)
        for pack, width in zip(trials, widths, strict=True)
    ]
    # as many parallel trials as without packs
    throttled = chosen.model_copy(update={"parallel": max(1, chosen.parallel // max(widths))})
    ids: list[str] = []
    try:
        ids = _sbatch(submission, attempts, shape, throttled, trials[0][0].ablation)
        shared = claimed if any(len(pack) > 1 for pack in claimed) else ()
        submission.submitted(_base(ids[0]), len(ids), shared)
    except BaseException:
        _take_back(submission, [folder for pack in claimed for folder in pack], ids)
        raise
    submitted.add([_base(ids[0])], len(ids), sum(map(len, trials)))


def _take_back(submission: Submission, claimed: Sequence[RunFolder], ids: Sequence[str]) -> None:
    """Cancel the submitted jobs, and withdraw the claims."""
    with contextlib.suppress(SlurmError):
        queue.cancel({_base(name) for name in ids})
    submission.withdraw(claimed)


def _submit_chain(
    chain: Chain, chosen: Profile, asked: Queue, after: str | None, submitted: Submitted
) -> list[str]:
    """Submit all jobs of one trial as a chain, and return their base ids.

    A job waits for the end of the job before, not for its success: the next job does the work that
    the job before has not finished.

    Args:
        chain: the trial and its legs.
        chosen: profile of the cluster.
        asked: the queue that answers about earlier claims.
        after: id of the job that the first job waits for, or None.
        submitted: record in which the jobs are counted.
    """
    job, shape = chain.job, chain.shape
    folder = RunFolder(job.folder)
    submission = Submission(job.folder.parent.parent)
    if not submission.claim([folder], asked):
        return []
    ids: list[str] = []
    bases: list[str] = []
    try:
        for number, leg in enumerate(chain.legs):
            attempts = attempts_of(job, shape.ranks, leg, first=number == 0)
            before = bases[-1] if bases else after
            waits = None if before is None else f"afterany:{before}"
            ids += _sbatch(submission, attempts, shape, chosen, job.ablation, waits)
            bases.append(_base(ids[-1]))
            submission.chained(ids)  # each time: the launcher may be killed between two of them
    except BaseException:
        _take_back(submission, [folder], ids)
        raise
    submitted.add(bases, len(ids), 1)
    return bases


def _base(name: str) -> str:
    """Return the id that all tasks of an array share."""
    return name.partition("_")[0]


def _sbatch(
    submission: Submission,
    attempts: Sequence[SlurmAttempt | PackAttempt],
    shape: Shape,
    chosen: Profile,
    name: str,
    after: str | None = None,
) -> list[str]:
    """Submit one array, or one job for a single attempt; return the ids in order."""
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
    """Hide environment variables that would override the profile's settings of a job.

    These are the variables of the SLURM job in which this process may run, whose limits sbatch
    would pass on, and options of SLURM's commands in the user's shell, which override the script's.
    """
    return started_safely(queue.VARIABLES, queue.CLUSTER_VARIABLES)

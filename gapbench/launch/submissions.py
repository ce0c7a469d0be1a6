"""Submissions: records of submitted trials, so that no second launcher submits the same trial.

Before a submission, each run folder gets a claim that names the submission. Afterwards the
submission's own file gets the id of the job. Claims need no renewal: a claim counts as long as
SLURM may still run its job or, before there is a job, as long as the launcher lives. A COMPLETING
job also counts; another launcher waits until the job has ended. In a job with a pack of trials, a
failed or cancelled trial can be submitted again while the job runs.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from gapbench.base.documents import is_plain, read_json, write_json
from gapbench.launch.queue import Listed, Queue
from gapbench.runs import leases
from gapbench.runs.documents import Count, Finite
from gapbench.runs.store import LOST_AFTER, RunFolder, State

JOB = re.compile(r"\d+(_\d+)?")


class Claim(BaseModel):
    """The content of submitted.json, except its author.

    Attributes:
        submission: name of the submission and of its folder.
        index: index of the job in its array.
        attempts: number of attempts that had begun before.
        at: time of the claim in seconds since 1970.
        packed: whether the job has several trials.
    """

    model_config = {"strict": True}

    submission: Annotated[str, Field(pattern=r"^[\w-]{1,100}$")]
    index: Count
    attempts: Count
    at: Finite
    packed: bool = False


class Submission:
    """One array of jobs; its folder contains submitit's files, including log output.

    Args:
        results: the results folder.
        name: name of the submission, which the comment of the jobs also has.
    """

    def __init__(self, results: Path, name: str | None = None) -> None:
        self.name = name or time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
        self.folder = results / "slurm" / self.name
        self.file = self.folder / "submission.json"
        self.packs = self.folder / "packs.json"

    def claim(self, folders: Sequence[RunFolder], queue: Queue) -> list[RunFolder]:
        """Claim trials with one job each, and return the trials that nobody else has claimed.

        A folder's position in the returned list is its index in the array.
        """
        return [folder for (folder,) in self.claim_packs([[folder] for folder in folders], queue)]

    def claim_packs(
        self, packs: Iterable[Sequence[RunFolder]], queue: Queue
    ) -> list[list[RunFolder]]:
        """Claim packs of trials; return, by pack, the trials that nobody else has claimed.

        A pack's position in the returned list is its index in the array.
        """
        claimed: list[list[RunFolder]] = []
        for pack in packs:
            mark = {"submission": self.name, "index": len(claimed), "packed": len(pack) > 1}
            mark |= {"at": time.time(), **leases.this_process()}
            mine = []
            for folder in pack:
                if _replace(folder, {**mark, "attempts": folder.attempts}, queue):
                    mine.append(folder)
            claimed += [mine] if mine else []
        return claimed

    def holds(self, folder: RunFolder) -> bool:
        """Say whether this submission, and no later submission, claims a trial."""
        claim = _claim(folder)
        return claim is not None and claim["submission"] == self.name

    def withdraw(self, folders: Iterable[RunFolder]) -> None:
        """Withdraw this submission's claims."""
        for folder in folders:
            claim = _claim(folder)
            if claim is not None and claim["submission"] == self.name:
                leases.remove(folder.submitted, claim)

    def submitted(self, job: str, count: int, packs: Sequence[Sequence[RunFolder]] = ()) -> None:
        """Record the job's id; several jobs are an array.

        Args:
            job: the id.
            count: number of jobs.
            packs: the trials of each job, if jobs have several trials.
        """
        if packs:
            names = [" ".join(folder.path.name for folder in pack) for pack in packs]
            write_json(self.packs, {"packs": names})
        write_json(self.file, {"job": job, "count": count, "at": time.time()})

    def chained(self, jobs: Sequence[str]) -> None:
        """Record the ids of a chain's jobs, in order."""
        write_json(self.file, {"chain": list(jobs), "at": time.time()})


def jobs_of(folder: RunFolder) -> list[str]:
    """Return the ids of the SLURM jobs of a trial's last submission, such as 12_3."""
    claim = _claim(folder)
    known = None if claim is None else read_json(_submission(folder, claim).file)
    if claim is None or known is None:
        return []
    jobs = known.get("chain")
    if not isinstance(jobs, list):
        job = known.get("job")
        jobs = [job if known.get("count") == 1 else f"{job}_{claim['index']}"]
    # these words reach SLURM's commands, where others would be options
    return jobs if all(isinstance(job, str) and JOB.fullmatch(job) for job in jobs) else []


def leave(folder: RunFolder) -> list[str]:
    """Return the jobs to cancel with a trial, without jobs that other trials of its pack need.

    A trial leaves such a job: the trial's claim is withdrawn, and the job skips the trial.
    """
    claim, jobs = _claim(folder), jobs_of(folder)
    if claim is None or not claim.get("packed"):
        return jobs
    if not any(_open(mate, claim) for mate in _pack(folder, claim)):
        return jobs
    if folder.state() != "failed":
        leases.remove(folder.submitted, claim)
    return []


def _pack(folder: RunFolder, claim: Mapping[str, Any]) -> list[RunFolder]:
    """Return the other trials of the job in which a trial was submitted."""
    packs = (read_json(_submission(folder, claim).packs) or {}).get("packs")
    names = packs[claim["index"]] if isinstance(packs, list) and len(packs) > claim["index"] else ""
    keys = re.findall(r"[0-9a-f]{16}", names) if isinstance(names, str) else []
    return [RunFolder(folder.path.with_name(key)) for key in keys if key != folder.path.name]


def _open(mate: RunFolder, claim: Mapping[str, Any]) -> bool:
    """Say whether a job must still run a trial of its pack."""
    own = _claim(mate) or {}
    same = all(own.get(name) == claim[name] for name in ("submission", "index"))
    return same and mate.state() not in ("completed", "failed") and not mate.cancelled.exists()


def log_of(folder: RunFolder) -> Path | None:
    """Return the file with the output of the trial's latest SLURM job, if any."""
    claim, jobs = _claim(folder), jobs_of(folder)
    if claim is None or not jobs:
        return None
    logs = [_submission(folder, claim).folder / f"{job}_0_log.out" for job in jobs]
    return max(filter(is_plain, logs), key=lambda path: path.lstat().st_mtime, default=None)


SILENT = "SLURM does not answer"


@dataclass(frozen=True)
class TrialState:
    """The state of a trial, including SLURM's answer.

    Attributes:
        state: state from the run folder; SLURM only tells waiting trials from forgotten trials.
        job: id of the trial's SLURM job, if any; in a chain, of the job whose turn it is.
        hint: SLURM's state and reason of the job.
        jobs: ids of all the trial's jobs.
        ending: whether the process or job that has the trial is about to end; until then the
            outcome is open, and no other process can take the trial.
    """

    state: State
    job: str | None = None
    hint: str = ""
    jobs: tuple[str, ...] = ()
    ending: bool = False


def look(folders: Sequence[RunFolder], queue: Queue) -> list[TrialState]:
    """Return the state of each trial."""
    jobs = [jobs_of(folder) for folder in folders]
    answer = queue.ask(job for several in jobs for job in several)
    return [_sight(folder, several, answer) for folder, several in zip(folders, jobs, strict=True)]


def _sight(folder: RunFolder, jobs: list[str], answer: dict[str, Listed] | None) -> TrialState:
    seen = _seen(folder, _whose_turn(jobs, answer), answer)
    ending = _ends(folder, seen, jobs, answer)
    return replace(seen, jobs=tuple(jobs) if seen.job else (), ending=ending)


def _ends(
    folder: RunFolder, seen: TrialState, jobs: Sequence[str], answer: dict[str, Listed] | None
) -> bool:
    """Say whether the process or job that has a trial is about to end.

    Most COMPLETING jobs never run again, but SLURM requeues some of them.
    """
    if seen.state == "running" and folder.cancelled.exists():
        return True
    if seen.state == "completed" or answer is None:
        return False
    if seen.state == "failed":
        claim = _claim(folder)
        return bool(jobs) and claim is not None and _lives(folder, claim, answer)
    return any(job in answer and answer[job].state == "COMPLETING" for job in jobs)


def _whose_turn(jobs: Sequence[str], answer: dict[str, Listed] | None) -> str | None:
    """Return the running job of a chain, else the next job, else the last job."""
    known = {job: answer[job] for job in jobs if job in answer} if answer else {}
    running = [job for job, listed in known.items() if listed.state == "RUNNING"]
    waiting = [job for job, listed in known.items() if listed.lives]
    return next(iter([*running, *waiting, *reversed(jobs)]), None)


def _seen(folder: RunFolder, job: str | None, answer: dict[str, Listed] | None) -> TrialState:
    state, claim = folder.state(), _claim(folder)
    if state == "completed" or claim is None:
        return TrialState(state)
    if job is None:  # claimed, but not submitted yet
        waits = state != "running" and _lives(folder, claim, answer)
        return TrialState("queued" if waits else _without_job(state))
    listed = None if answer is None else answer.get(job)
    if answer is None:
        return TrialState(state, job, SILENT)
    if listed is None or not listed.lives:
        hint = "" if listed is None else listed.hint
        return TrialState(_without_job(state), job, hint)
    if state == "failed" and _begun(folder, claim):
        return TrialState(state, job, listed.hint)  # the job is about to end, or has others to run
    if state in ("interrupted", "lost") and any(branches_of(folder)):
        return TrialState("running", job, listed.hint)
    if state == "lost" and _beats_elsewhere(folder, job):
        return TrialState("running", job, f"{listed.hint}, no sign of life for a while")
    return TrialState("running" if state == "running" else "queued", job, listed.hint)


def _begun(folder: RunFolder, claim: Mapping[str, Any]) -> bool:
    """Say whether an attempt has begun since a trial was claimed."""
    return bool(folder.attempts > claim["attempts"])


def _without_job(state: State) -> State:
    """Return the state of a trial that SLURM will not run, or not run again."""
    return "planned" if state == "queued" else state


def _beats_elsewhere(folder: RunFolder, job: str) -> bool:
    """Say whether SLURM still lists the job of a silent owner on another host."""
    owner = read_json(folder.owner)
    return owner is not None and not leases.is_here(owner) and owner.get("slurm_job") == job


def branches_of(folder: RunFolder) -> Iterator[RunFolder]:
    """Yield the folders of the P-GaP branches that separate jobs are training."""
    for _, _, branch in folder.branches():
        if branch.living_owner() is not None:
            yield branch


def _replace(folder: RunFolder, mark: dict[str, Any], queue: Queue) -> bool:
    """Write a claim, unless a claim that still counts exists; return whether it was written."""
    while not leases.create(folder.submitted, mark):
        found = read_json(folder.submitted)
        claim = _claim(folder)
        if claim is not None and _lives(folder, claim, queue.ask(jobs_of(folder))):
            return False
        leases.remove(folder.submitted, found)
    return True


def _claim(folder: RunFolder) -> dict[str, Any] | None:
    """Return the trial's claim, or None if it is absent or damaged."""
    claim = read_json(folder.submitted)
    try:
        Claim.model_validate(claim)
    except ValidationError:
        return None
    return claim


def _lives(folder: RunFolder, claim: dict[str, Any], answer: dict[str, Listed] | None) -> bool:
    """Say whether a claim counts; without an answer from SLURM, the claim counts."""
    jobs = jobs_of(folder)
    if not jobs:
        if leases.is_here(claim):
            return leases.runs_here(claim)
        return time.time() - float(claim["at"]) < LOST_AFTER
    if claim.get("packed") and folder.state() == "failed" and _begun(folder, claim):
        return False  # its job may go on for long, but not with this trial
    if answer is None:
        return True
    return any(job in answer and answer[job].lives for job in jobs)


def _submission(folder: RunFolder, claim: Mapping[str, Any]) -> Submission:
    return Submission(folder.path.parent.parent, claim["submission"])

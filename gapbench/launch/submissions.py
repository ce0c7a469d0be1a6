"""Submissions: which launcher has handed which trial to SLURM, so that no second one does.

Before anything is submitted, each run folder gets a claim that names the submission; afterwards the
submission's own file gets the id of the job. Claims need no renewal: one counts as long as SLURM
may still run its job, or, before there is a job, as long as the launcher lives. That includes a job
that is COMPLETING; who wants its trials waits until it has ended. A job may carry a pack of trials:
one that has failed, or that was cancelled, can then be submitted anew beside it.
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
    """What submitted.json says, beside who wrote it.

    Attributes:
        submission: its name, which is that of a folder.
        index: the job's place in its array.
        attempts: that had begun before.
        at: seconds since 1970.
        packed: whether the job carries several trials.
    """

    model_config = {"strict": True}

    submission: Annotated[str, Field(pattern=r"^[\w-]{1,100}$")]
    index: Count
    attempts: Count
    at: Finite
    packed: bool = False


class Submission:
    """One array of jobs; its folder holds submitit's files, log output among them.

    Args:
        results: the results folder.
        name: the submission's own, which is also in the jobs' comment.
    """

    def __init__(self, results: Path, name: str | None = None) -> None:
        self.name = name or time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
        self.folder = results / "slurm" / self.name
        self.file = self.folder / "submission.json"
        self.packs = self.folder / "packs.json"

    def claim(self, folders: Sequence[RunFolder], queue: Queue) -> list[RunFolder]:
        """Claim trials that are a job each, and return those that nobody else has claimed.

        A folder's place in the returned list is its index in the array.
        """
        return [folder for (folder,) in self.claim_packs([[folder] for folder in folders], queue)]

    def claim_packs(
        self, packs: Iterable[Sequence[RunFolder]], queue: Queue
    ) -> list[list[RunFolder]]:
        """Claim trials that share jobs; return, pack by pack, those that nobody else has claimed.

        A pack's place in the returned list is its index in the array.
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
        """Say whether a trial is claimed by this submission, and by no later one."""
        claim = _claim(folder)
        return claim is not None and claim["submission"] == self.name

    def withdraw(self, folders: Iterable[RunFolder]) -> None:
        """Take this submission's claims back."""
        for folder in folders:
            claim = _claim(folder)
            if claim is not None and claim["submission"] == self.name:
                leases.remove(folder.submitted, claim)

    def submitted(self, job: str, count: int, packs: Sequence[Sequence[RunFolder]] = ()) -> None:
        """Record the job's id; with more than one job it is an array.

        Args:
            job: the id.
            count: number of jobs.
            packs: the trials of each job, where jobs carry several.
        """
        if packs:
            names = [" ".join(folder.path.name for folder in pack) for pack in packs]
            write_json(self.packs, {"packs": names})
        write_json(self.file, {"job": job, "count": count, "at": time.time()})

    def chained(self, jobs: Sequence[str]) -> None:
        """Record the ids of the jobs that one trial was split into, in order."""
        write_json(self.file, {"chain": list(jobs), "at": time.time()})


def jobs_of(folder: RunFolder) -> list[str]:
    """Return the ids of the SLURM jobs that a trial was last submitted as, such as 12_3."""
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
    """Return the jobs to be cancelled with a trial; others of its pack keep theirs.

    From those the trial parts: its claim is withdrawn, and its job passes it over.
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
    """Return the other trials that were submitted in one job with this one."""
    packs = (read_json(_submission(folder, claim).packs) or {}).get("packs")
    names = packs[claim["index"]] if isinstance(packs, list) and len(packs) > claim["index"] else ""
    keys = re.findall(r"[0-9a-f]{16}", names) if isinstance(names, str) else []
    return [RunFolder(folder.path.with_name(key)) for key in keys if key != folder.path.name]


def _open(mate: RunFolder, claim: Mapping[str, Any]) -> bool:
    """Say whether a job has still to run a trial that it was submitted with."""
    own = _claim(mate) or {}
    same = all(own.get(name) == claim[name] for name in ("submission", "index"))
    return same and mate.state() not in ("completed", "failed") and not mate.cancelled.exists()


def log_of(folder: RunFolder) -> Path | None:
    """Return the file with what the latest of the trial's SLURM jobs has printed, if any has."""
    claim, jobs = _claim(folder), jobs_of(folder)
    if claim is None or not jobs:
        return None
    logs = [_submission(folder, claim).folder / f"{job}_0_log.out" for job in jobs]
    return max(filter(is_plain, logs), key=lambda path: path.lstat().st_mtime, default=None)


@dataclass(frozen=True)
class TrialState:
    """What is known of a trial, SLURM's word included.

    Attributes:
        state: judged by the run folder; SLURM only tells waiting trials from forgotten ones.
        job: the id of its SLURM job, if it has one; of a chain that one whose turn it is.
        hint: what SLURM says about that job.
        jobs: the ids of all its jobs.
        ending: whether what has it, a process or a job, is about to end: what comes of the trial
            shows only then, and nobody else gets it before.
    """

    state: State
    job: str | None = None
    hint: str = ""
    jobs: tuple[str, ...] = ()
    ending: bool = False


def look(folders: Sequence[RunFolder], queue: Queue) -> list[TrialState]:
    """Return what is known of each trial."""
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
    """Say whether a trial is about to be left by what has it.

    Most jobs that are COMPLETING never run again, but some of them SLURM requeues.
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
    """Return that job of a chain which runs, else the next one, else the last."""
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
        return TrialState(state, job, "SLURM does not answer")
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
    """Return the state of a trial that SLURM will not run (any more)."""
    return "planned" if state == "queued" else state


def _beats_elsewhere(folder: RunFolder, job: str) -> bool:
    """Say whether a run on another host, whose job SLURM still lists, has just been silent."""
    owner = read_json(folder.owner)
    return owner is not None and not leases.is_here(owner) and owner.get("slurm_job") == job


def branches_of(folder: RunFolder) -> Iterator[RunFolder]:
    """Yield the folders of the P-GaP branches that are being trained in jobs of their own."""
    for _, _, branch in folder.branches():
        if branch.living_owner() is not None:
            yield branch


def _replace(folder: RunFolder, mark: dict[str, Any], queue: Queue) -> bool:
    """Put a claim in place of none or of one that no longer counts."""
    while not leases.create(folder.submitted, mark):
        found = read_json(folder.submitted)
        claim = _claim(folder)
        if claim is not None and _lives(folder, claim, queue.ask(jobs_of(folder))):
            return False
        leases.remove(folder.submitted, found)
    return True


def _claim(folder: RunFolder) -> dict[str, Any] | None:
    """Return the trial's claim; one that is damaged is none."""
    claim = read_json(folder.submitted)
    try:
        Claim.model_validate(claim)
    except ValidationError:
        return None
    return claim


def _lives(folder: RunFolder, claim: dict[str, Any], answer: dict[str, Listed] | None) -> bool:
    """Say whether a claim counts; one about which SLURM does not answer does."""
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

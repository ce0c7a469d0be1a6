"""What SLURM says about jobs. Only squeue is asked: it needs no accounting and never lags behind.

SLURM's word is a hint about trials that wait; what a trial has done is told by its run folder. A
question that gets no answer means nothing, and a state that is not known to be final is not final.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gapbench.errors import UserError

# A job in any other state, also one that a later SLURM may invent, can still do something.
# One that is PREEMPTED may be about to be requeued
FINAL = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("REVOKED", "TIMEOUT"),
)
# Reasons for which a job waits until somebody changes it or the cluster
HOPELESS = (
    *("AccountNotAllowed", "BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionConfig"),
    *("PartitionNodeLimit", "PartitionTimeLimit", "QOSNotAllowed"),
)
# What variables begin with that change what SLURM's commands submit or print, and those among them
# that only say which cluster is meant
VARIABLES = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SUBMITIT_")
CLUSTER_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")
FIELDS = "%i|%T|%r"
MOST_IN_ARRAY = 1001  # SLURM's default of MaxArraySize
ANSWER_SECONDS = 60.0
PROGRAM = re.compile(r"^\w+: (error|fatal): ")


class SlurmError(Exception):
    """A command of SLURM's failed; the message is SLURM's reason in one line."""


@dataclass(frozen=True)
class Listed:
    """A job, or one task of an array, as squeue lists it.

    Attributes:
        job: "12" or "12_3".
        state: SLURM's word, such as RUNNING.
        reason: why it waits, such as Priority.
    """

    job: str
    state: str
    reason: str = "None"

    @property
    def lives(self) -> bool:
        """Whether the job may still run or is running."""
        return self.state not in FINAL

    @property
    def hint(self) -> str:
        """The state and, if there is one, the reason."""
        return self.state if self.reason in ("None", "") else f"{self.state}: {self.reason}"


class Queue:
    """Answers of squeue, each used for a few seconds.

    Args:
        seconds: how old an answer may be.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self._answers: dict[frozenset[str], tuple[float, dict[str, Listed] | None]] = {}

    def ask(self, jobs: Iterable[str]) -> dict[str, Listed] | None:
        """Return what SLURM knows of `jobs` (their base ids are asked for), or None: no answer."""
        wanted = frozenset(job.partition("_")[0] for job in jobs)
        if not wanted:
            return {}
        asked, answer = self._answers.get(wanted, (float("-inf"), None))
        if time.monotonic() - asked >= self.seconds:
            answer = listed(sorted(wanted))
            self._answers[wanted] = (time.monotonic(), answer)
        return answer


def listed(jobs: Sequence[str]) -> dict[str, Listed] | None:
    """Ask squeue once about jobs by base id; return them by full id, or None without an answer."""
    if shutil.which("squeue") is None:
        return None
    words = ["--noheader", "--states=all", "--array", f"--format={FIELDS}"]
    try:
        text = command("squeue", *words, f"--jobs={','.join(jobs)}")
    except SlurmError as error:
        return {} if "Invalid job id" in str(error) else None  # so it says when it knows none
    found = [parsed(line) for line in text.splitlines() if line.count("|") >= 2]
    return {item.job: item for item in found}


def parsed(line: str) -> Listed:
    """Return what one line of squeue, in the format of FIELDS, tells."""
    job, state, reason = line.strip().split("|", 2)
    return Listed(job, state, reason.strip("()"))


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; those that have ended already are no error.

    Raises:
        SlurmError: if SLURM does not answer or refuses.
    """
    wanted = sorted(jobs)
    if wanted:
        command("scancel", "--quiet", *wanted)


def command(*words: str, seconds: float = ANSWER_SECONDS) -> str:
    """Run one of SLURM's commands and return what it prints.

    Raises:
        SlurmError: with SLURM's reason.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{words[0]}: {error}") from None
    if done.returncode:
        raise SlurmError(reason(done.stderr) or f"{words[0]} ended with code {done.returncode}")
    return done.stdout


def reason(text: str) -> str:
    """Return what SLURM's error output says, as one line without the programs' names."""
    lines = [PROGRAM.sub("", line).strip() for line in text.splitlines()]
    said = dict.fromkeys(line for line in lines if line)
    return "; ".join(list(said)[-2:])


def usable() -> tuple[bool, str]:
    """Say whether this machine belongs to a SLURM cluster, and why.

    A cluster whose controller is down still counts: running on its login node instead would be no
    favour, so that the submission has to fail with SLURM's reason.
    """
    if shutil.which("sbatch") is None:
        return False, "no sbatch here"
    try:
        command("scontrol", "ping", seconds=10)
    except SlurmError as error:
        if "configuration source" in str(error):
            return False, "sbatch is there, but no cluster is configured"
    return True, "sbatch is there"


def most_in_array() -> int:
    """Return how many jobs an array may have on this cluster."""
    try:
        told = re.search(r"^MaxArraySize\s*=\s*(\d+)", command("scontrol", "show", "config"), re.M)
    except SlurmError:
        told = None
    return max(1, int(told[1])) if told else MOST_IN_ARRAY


def _environment() -> Mapping[str, str]:
    """Leave out what would change what is asked and answered behind our back."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(VARIABLES) or name in CLUSTER_VARIABLES
    }


def require_usable() -> None:
    """Check that SLURM's commands are here.

    Raises:
        UserError: if they are not.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--executor slurm: no sbatch here: use a login node of the cluster, or --executor "
            "local: `gapbench doctor` says what is here"
        )

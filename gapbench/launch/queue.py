"""SLURM's states of jobs, from squeue alone, which needs no accounting and never lags behind.

SLURM's answer only refines the state of waiting trials; the run folder says what a trial has done.
A missing answer means nothing. A state counts as final only if it is known to be final.
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
# Reasons for which a job waits until a person changes the job or the cluster
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
    """A SLURM command failed; the message is SLURM's reason in one line."""


@dataclass(frozen=True)
class Listed:
    """A job, or one task of an array, as listed by squeue.

    Attributes:
        job: the id, such as "12" or "12_3".
        state: SLURM's state, such as RUNNING.
        reason: SLURM's reason for waiting, such as Priority.
    """

    job: str
    state: str
    reason: str = "None"

    @property
    def lives(self) -> bool:
        """Whether the job is running or may still run."""
        return self.state not in FINAL

    @property
    def hint(self) -> str:
        """The state and, if there is one, the reason."""
        return self.state if self.reason in ("None", "") else f"{self.state}: {self.reason}"


class Queue:
    """A cache of squeue's answers.

    Args:
        seconds: maximum age of an answer in seconds.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self._answers: dict[frozenset[str], tuple[float, dict[str, Listed] | None]] = {}

    def ask(self, jobs: Iterable[str]) -> dict[str, Listed] | None:
        """Return SLURM's entries of `jobs` (looked up by base id), or None without an answer."""
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
    """Return the job of one line of squeue in the format FIELDS."""
    job, state, reason = line.strip().split("|", 2)
    return Listed(job, state, reason.strip("()"))


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; jobs that have already ended cause no error.

    Raises:
        SlurmError: if SLURM does not answer or refuses.
    """
    wanted = sorted(jobs)
    if wanted:
        command("scancel", "--quiet", *wanted)


def command(*words: str, seconds: float = ANSWER_SECONDS) -> str:
    """Run a SLURM command and return its output.

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
    """Return SLURM's error output as one line without the programs' names."""
    lines = [PROGRAM.sub("", line).strip() for line in text.splitlines()]
    said = dict.fromkeys(line for line in lines if line)
    return "; ".join(list(said)[-2:])


def usable() -> tuple[bool, str]:
    """Return whether this machine belongs to a SLURM cluster, and the reason.

    A cluster whose controller is down still counts. The submission then fails with SLURM's reason,
    instead of running trials on the login node.
    """
    if shutil.which("sbatch") is None:
        return False, "no sbatch on this machine"
    try:
        command("scontrol", "ping", seconds=10)
    except SlurmError as error:
        if "configuration source" in str(error):
            return False, "sbatch found, but no cluster is configured"
    return True, "sbatch found"


def most_in_array() -> int:
    """Return the maximum number of jobs in an array on this cluster."""
    try:
        told = re.search(r"^MaxArraySize\s*=\s*(\d+)", command("scontrol", "show", "config"), re.M)
    except SlurmError:
        told = None
    return max(1, int(told[1])) if told else MOST_IN_ARRAY


def _environment() -> Mapping[str, str]:
    """Return the environment without variables that change SLURM's questions and answers."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(VARIABLES) or name in CLUSTER_VARIABLES
    }


def require_usable() -> None:
    """Check that SLURM's commands are installed.

    Raises:
        UserError: if a command is missing.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--executor slurm: no sbatch on this machine: use a login node of the cluster, or "
            "--executor local: `gapbench doctor` checks this machine"
        )

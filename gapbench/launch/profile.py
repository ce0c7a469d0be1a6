"""Cluster profiles: settings of a cluster, never of an experiment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from gapbench.base.places import below_home
from gapbench.errors import UserError
from gapbench.spec.loading import load
from gapbench.spec.schema import Strict, validated
from gapbench.tasks.task import Resources


def _lines(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


def _one_line(value: str) -> str:
    # each value becomes a line of the job's script
    if not value.isprintable():
        raise ValueError("give one line without control characters")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
Option = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class Profile(Strict):
    """Settings for submitting trials to one cluster; every key is optional.

    Attributes:
        partition: as for sbatch, like account, qos, constraint, gres, exclude and reservation.
        setup: shell lines that run on the node before Python, such as `module load ...`.
        nodes: number of nodes; like gpus, cpus, memory_gb and hours, it overrides the task's value.
        memory_gb: memory of a job in GB; null if jobs must not ask for memory.
        tasks_per_node: processes per node that train one trial together; by default one per GPU.
        parallel: number of trials of an array that run in parallel.
        pack_minutes: training time in minutes of a job with several short trials; 0: each trial has
            its own job.
        chain: whether one trial may become several jobs, one after another: P-GaP with parallel
            jobs for its branches, and any trial whose task asks for more hours than `hours`.
        warning_seconds: time between SLURM's signal and the end of the time limit; at most a third
            of the limit is used.
        sbatch: further options of sbatch, by their long names.
    """

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    gres: Line | None = None
    exclude: Line | None = None
    reservation: Line | None = None
    setup: Annotated[tuple[str, ...], BeforeValidator(_lines)] = ()
    nodes: int | None = Field(default=None, ge=1)
    gpus: int | None = Field(default=None, ge=0)
    cpus: int | None = Field(default=None, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    tasks_per_node: int | None = Field(default=None, ge=1)
    parallel: int = Field(default=256, ge=1)
    # short enough to delay no trial by much, and so long that starting Python is a small part of it
    pack_minutes: float = Field(default=5, ge=0)
    chain: bool = True
    warning_seconds: int = Field(default=180, ge=10)
    sbatch: Mapping[Option, Line | int | bool] = Field(default_factory=dict)

    @property
    def asks_for_memory(self) -> bool:
        """Whether jobs ask for memory; some clusters accept only other options."""
        without = "memory_gb" in self.model_fields_set and self.memory_gb is None
        others = {key.replace("_", "-") for key in self.sbatch} & {"mem-per-cpu", "mem-per-gpu"}
        return not (without or others)


@dataclass(frozen=True)
class Shape:
    """The resources of one job; jobs of one shape form one array.

    Attributes:
        resources: the task's resources, with the profile's overrides.
        tasks_per_node: number of processes on each node.
    """

    resources: Resources
    tasks_per_node: int

    @property
    def ranks(self) -> int:
        """Number of processes that train one trial together."""
        return self.resources.nodes * self.tasks_per_node


def find(given: Path | None) -> Path | None:
    """Return the profile's file: `--profile`, $GAPBENCH_PROFILE or ~/.config/gapbench/profile.yaml.

    The result is None if no file is named and the file in ~/.config does not exist.
    """
    if given is not None:
        return given
    named = os.environ.get("GAPBENCH_PROFILE")
    if named:
        return Path(named)
    try:
        usual = below_home("XDG_CONFIG_HOME", "~/.config") / "profile.yaml"
    except UserError:  # who has no home folder has no profile in it
        return None
    return usual if usual.exists() else None


def read(file: Path | None) -> Profile:
    """Return the profile in `file`, or the default profile for None.

    Raises:
        UserError: naming file, line and key of an invalid value.
    """
    return Profile() if file is None else validated(Profile, load(file))


def shape(resources: Resources, threads: int, profile: Profile, ranks: int) -> Shape:
    """Return the shape of a trial of `ranks` processes on the cluster of `profile`.

    Raises:
        UserError: if the profile has another number of processes, or too few processors for them.
    """
    given = {
        name: value
        for name in ("nodes", "gpus", "cpus", "memory_gb", "hours")
        if (value := getattr(profile, name)) is not None
    }
    wanted = replace(resources, **given)
    tasks = profile.tasks_per_node or max(1, wanted.gpus)
    least = tasks * threads
    if "cpus" in given and wanted.cpus < tasks:
        raise UserError(f"profile: cpus: {wanted.cpus} for {tasks} processes a node: give {least}")
    found = Shape(replace(wanted, cpus=max(wanted.cpus, least)), tasks)
    if found.ranks != ranks:
        raise UserError(
            f"profile: {wanted.nodes} nodes with {tasks} processes each for a trial of {ranks}: "
            f"change nodes, gpus or tasks_per_node, or give --set recipe.ranks={found.ranks}, "
            "which makes other trials with other numbers"
        )
    return found


def warning(shape: Shape, profile: Profile) -> int:
    """Return the seconds between SLURM's signal and the end of a job's time limit."""
    return min(profile.warning_seconds, math.ceil(shape.resources.hours * 60) * 60 // 3)


def parameters(
    shape: Shape, profile: Profile, name: str, after: str | None = None
) -> dict[str, Any]:
    """Return the parameters of submitit's SLURM executor for jobs of one shape.

    Args:
        shape: resources of each job.
        profile: profile of the cluster.
        name: name of the jobs.
        after: value of sbatch's option dependency, or None.
    """
    wanted = shape.resources
    minutes = math.ceil(wanted.hours * 60)
    per_task = wanted.cpus // shape.tasks_per_node
    further: dict[str, Any] = {"requeue": True, **profile.sbatch}
    if after is not None:
        further["dependency"] = after
    if profile.reservation is not None:
        further["reservation"] = profile.reservation
    chosen = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "gres": profile.gres,
        "setup": list(profile.setup) or None,
        "mem": f"{math.ceil(wanted.memory_gb * 1024)}MB" if profile.asks_for_memory else None,
        "gpus_per_node": None if profile.gres or not wanted.gpus else wanted.gpus,
    }
    return {
        "job_name": name,
        "time": minutes,
        "nodes": wanted.nodes,
        "ntasks_per_node": shape.tasks_per_node,
        "cpus_per_task": per_task,
        "signal_delay_s": warning(shape, profile),
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's own default, which clusters that track such keys refuse
        # srun does not inherit --cpus-per-task since SLURM 22.05
        "srun_args": [f"--cpus-per-task={per_task}", "--kill-on-bad-exit=1"],
        "additional_parameters": further,
        **{key: value for key, value in chosen.items() if value is not None},
    }

"""What is launched: one attempt of one trial, known by its run folder; and who launches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gapbench.registry import Registry
from gapbench.tasks.task import Resources


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        folder: its run folder, which holds trial.json.
        ablation: the Sacred experiment's name.
        label: what people call it.
        resources: what the task asks for.
        threads: CPU threads it computes with.
        branches: processes for the branches of a P-GaP round.
    """

    folder: Path
    ablation: str
    label: str
    resources: Resources
    threads: int = 1
    branches: int = 1


class Attempt:
    """The callable that submitit pickles: paths and plain values, nothing live."""

    def __init__(self, job: Job) -> None:
        self.folder = str(job.folder)
        self.ablation = job.ablation
        self.branches = job.branches

    def __call__(self) -> str:
        """Run one attempt in this process; return the state it ended in."""
        from gapbench.experiments.sacred_run import run_attempt
        from gapbench.experiments.trial_run import Execution

        return run_attempt(self.folder, self.ablation, Execution(self.branches))


class Launch(Protocol):
    """Trials on their way."""

    def poll(self) -> bool:
        """Start what can be started; return whether anything is still to come."""

    def stop(self) -> None:
        """Ask running trials to write their checkpoints and end; wait until they have."""


Launcher = Callable[..., Launch]
executors: Registry[Launcher] = Registry("executor", "gapbench.launch")


def executor(name: str) -> Callable[[Launcher], Launcher]:
    """Register a function from (jobs, parallel, options) to a `Launch`."""
    return executors.register(name)


def launch(name: str, jobs: Sequence[Job], parallel: int | None, **options: Any) -> Launch:
    """Start `jobs` with the executor `name`, at most `parallel` side by side.

    Raises:
        UserError: if the executor is unknown or refuses.
    """
    return executors[name](jobs, parallel, **options)

"""Jobs: attempts of trials, identified by their run folders; and the registry of executors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gapbench.base.children import PORTABLE_KERNELS
from gapbench.base.registry import Registry
from gapbench.tasks.task import Resources

if TYPE_CHECKING:
    from gapbench.execution.trial_run import Execution
    from gapbench.plan.phases import Plan


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        folder: the trial's run folder, which has its trial.json.
        ablation: name of the Sacred experiment.
        label: the trial's label.
        resources: resources that the task asks for.
        threads: number of CPU threads.
        branches: number of processes for the branches of a P-GaP round.
        ranks: number of processes that share each batch.
        portable: whether the trial uses the CPU kernels that all processors have.
        compiled: whether training uses torch.compile.
        plan: the trial's plan, by which the trial may be split into several jobs.
        seconds: expected training time in seconds, or None if unknown.
    """

    folder: Path
    ablation: str
    label: str
    resources: Resources
    threads: int = 1
    branches: int = 1
    ranks: int = 1
    portable: bool = False
    compiled: bool = False
    plan: Plan | None = None
    seconds: float | None = None

    @property
    def expected(self) -> float:
        """Expected training time in seconds; if unknown, the time that the task asks for."""
        return self.resources.hours * 3600 if self.seconds is None else self.seconds


class Attempt:
    """The callable that submitit pickles; it has paths and plain values only.

    Args:
        job: the trial.
        ranks: number of processes that train the trial together.
        gpus: value of CUDA_VISIBLE_DEVICES; None keeps the process's value.
    """

    def __init__(self, job: Job, ranks: int = 1, gpus: str | None = None) -> None:
        self.folder = str(job.folder)
        self.ablation = job.ablation
        self.branches = job.branches
        self.ranks = ranks
        self.gpus = gpus
        self.portable = job.portable

    def __call__(self) -> str:
        """Run one attempt in this process; return its final state."""
        self.set_variables()
        from gapbench.runs.store import Owned, RunFolder

        if RunFolder(Path(self.folder)).completed():
            return "completed"
        try:
            return self._run() if self.ranks == 1 else self._run_one_rank()
        except Owned as error:
            print(error)
            return "elsewhere"

    def set_variables(self) -> None:
        """Set this process's variables for GPUs and kernels, before torch reads them."""
        set_variables(self.gpus, self.portable)

    def execution(self) -> Execution:
        """Return the settings of the attempt's execution."""
        from gapbench.execution.trial_run import Execution

        return Execution(self.branches)

    def _run(self) -> str:
        from gapbench.execution.sacred_run import run_attempt

        with own_signals():
            return run_attempt(self.folder, self.ablation, self.execution())

    def _run_one_rank(self) -> str:
        from gapbench.launch.ranks import follow_first_rank, joined

        with joined() as rank:
            if rank == 0:
                return self._run()
            return follow_first_rank(Path(self.folder), self.execution())


def set_variables(gpus: str | None, portable: bool) -> None:
    """Set this process's variables for GPUs (None: no change) and kernels, before torch starts."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    if portable:
        os.environ.update(PORTABLE_KERNELS)


@contextmanager
def own_signals() -> Iterator[None]:
    """Let the block install signal handlers; restore the earlier handlers afterwards."""
    from gapbench.execution.stopping import STOP_SIGNALS

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Launch(Protocol):
    """Launched trials.

    Attributes:
        told: description of the submitted jobs; empty if the launcher runs trials itself.
    """

    told: str

    def poll(self) -> bool:
        """Start trials that can be started; return whether any trial has not ended."""

    def stop(self) -> str:
        """Stop at the user's request; return one line about what happens to the trials."""


Launcher = Callable[..., Launch]
executors: Registry[Launcher] = Registry("executor", "gapbench.launch")


def executor(name: str) -> Callable[[Launcher], Launcher]:
    """Register an executor: a function of (jobs, parallel, options) that returns a `Launch`."""
    return executors.register(name)


def launch(name: str, jobs: Sequence[Job], parallel: int | None, **options: Any) -> Launch:
    """Start `jobs` with the executor `name`, at most `parallel` in parallel.

    Raises:
        UserError: if the executor is unknown or refuses.
    """
    return executors[name](jobs, parallel, **options)

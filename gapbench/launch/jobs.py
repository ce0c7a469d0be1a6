"""What is launched: one attempt of one trial, known by its run folder; and who launches it."""

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
        folder: its run folder, which holds trial.json.
        ablation: the Sacred experiment's name.
        label: what people call it.
        resources: what the task asks for.
        threads: CPU threads it computes with.
        branches: processes for the branches of a P-GaP round.
        ranks: processes that share each batch.
        portable: whether it takes the CPU kernels that all processors have.
        compiled: whether torch's compiler makes its kernels.
        plan: what it does, by which it may be cut into several jobs.
        seconds: how long it is expected to train, if that is known.
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
        """Seconds that it is expected to train: what its task asks for, if no more is known."""
        return self.resources.hours * 3600 if self.seconds is None else self.seconds


class Attempt:
    """The callable that submitit pickles: paths and plain values, nothing live.

    Args:
        job: the trial.
        ranks: processes that train it together.
        gpus: value for CUDA_VISIBLE_DEVICES; None leaves the choice to who started the process.
    """

    def __init__(self, job: Job, ranks: int = 1, gpus: str | None = None) -> None:
        self.folder = str(job.folder)
        self.ablation = job.ablation
        self.branches = job.branches
        self.ranks = ranks
        self.gpus = gpus
        self.portable = job.portable

    def __call__(self) -> str:
        """Run one attempt in this process; return the state it ended in."""
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
        """Tell this process its GPUs and kernels, before torch looks."""
        set_variables(self.gpus, self.portable)

    def execution(self) -> Execution:
        """Return how the attempt is executed."""
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
    """Tell this process its GPUs, None being those it has, and its kernels, before torch looks."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    if portable:
        os.environ.update(PORTABLE_KERNELS)


@contextmanager
def own_signals() -> Iterator[None]:
    """Let the block handle signals in its own way; afterwards the handlers are as before."""
    from gapbench.execution.stopping import STOP_SIGNALS

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Launch(Protocol):
    """Trials on their way.

    Attributes:
        told: what has been submitted, in words; empty where the launcher runs trials itself.
    """

    told: str

    def poll(self) -> bool:
        """Start what can be started; return whether anything is still to come."""

    def stop(self) -> str:
        """Leave off because the user wants to; return one line that says what becomes of trials."""


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

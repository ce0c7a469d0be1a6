"""Lanes: several trials in one process, each in a thread of its own.

A lane has its own plan, checkpoint, run folder, log, Sacred run and failure; on a GPU its own CUDA
stream too, so that the small kernels of one overlap with those of others. What a process has once
is used in turns (`gapbench.training.turn`): a trial gives the bits that it gives alone.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gapbench.base.documents import read_json
from gapbench.errors import UserError
from gapbench.execution.sacred_run import run_attempt
from gapbench.execution.trial_run import Execution
from gapbench.methods.method import methods
from gapbench.plan.update import updates
from gapbench.runs.store import Owned, RunFolder
from gapbench.sparsity.distributions import distributions
from gapbench.sparsity.pattern import patterns
from gapbench.sparsity.score import scores
from gapbench.sparsity.transform import transforms
from gapbench.tasks.task import tasks

MOST = 16  # lanes; torch has 32 streams a GPU, of which each lane is to have its own
WARM_UP = 50  # steps of the first lane after which its memory is taken to be all that it needs
MARGIN = 1.5  # times that memory: evaluation takes more than a step, and other methods than one
SHARE = 0.8  # of the free memory: near its end cuDNN takes other kernels, which give other bits
CANCEL_SECONDS = 0.5
LOOK_SECONDS = 0.05
REGISTRIES = (methods, tasks, updates, distributions, patterns, scores, transforms)


@dataclass(frozen=True)
class LaneTrial:
    """A trial that a lane may take.

    Attributes:
        folder: its run folder, with its trial.json.
        ablation: the Sacred experiment's name.
        wanted: asked when its turn comes; if not, another process has it, and it is left alone.
    """

    folder: Path
    ablation: str
    wanted: Callable[[], bool] = lambda: True


def lanes_that_fit(trials: int, first: int, free: int) -> int:
    """Return how many lanes a GPU gets, the first included.

    Args:
        trials: that are left, the first one's included.
        first: bytes that the first lane has reserved.
        free: bytes that are free beside it.
    """
    more = int(SHARE * free / (MARGIN * max(first, 1)))
    return max(1, min(trials, MOST, 1 + more))


def gpu_memory() -> tuple[int, int] | None:
    """Return the most bytes that this process has reserved of its GPU, and those free; or None."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[0]


def run_lanes(
    trials: Sequence[LaneTrial],
    at_once: int | None = None,
    *,
    stop: Callable[[], bool],
    name: str = "lanes",
    begins: Callable[[], bool] = lambda: True,
    memory: Callable[[], tuple[int, int] | None] = gpu_memory,
    execution: Execution | None = None,
) -> dict[Path, str]:
    """Run trials in this process, `at_once` side by side; a lane that ends takes the next one.

    Trials that other processes have are left to them, so that several processes may be given the
    same trials.

    Args:
        trials: in the order in which they are begun.
        at_once: lanes. By default as many as `memory` has room for, judged by the first lane's
            first steps; one where there is no GPU.
        stop: asked after every step whether all lanes are to write their checkpoints and stop.
        name: what they go by, for `RunFolder.terminate_owner`.
        begins: asked before every trial whether one more may begin.
        memory: tells the bytes that this process has reserved at most, and those free beside it;
            None if there is no GPU.
        execution: how each is executed.

    Returns:
        the state of every trial that was taken, as of `run_attempt`, or "elsewhere".

    Raises:
        UserError: if trials differ in what a process has once: CPU threads, or kernels.
        ValueError: if `at_once` is not positive.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once: {at_once} lanes are not possible")
    _require_one_kind([trial.folder for trial in trials])
    for registry in REGISTRIES:  # a thread would take one that another is filling for filled
        list(registry)
    lanes = _Lanes(trials, stop, begins, replace(execution or Execution(), lanes=name))
    if at_once is None and memory() is not None:
        lanes.start(1)
        lanes.warm_up()
        at_once = lanes_that_fit(1 + lanes.left, *(memory() or (0, 0)))
    lanes.start(min(at_once or 1, len(trials)))
    lanes.join()
    return lanes.states


def _require_one_kind(folders: Sequence[Path]) -> None:
    """Check that what one trial's recipe sets for the whole process is what all others set.

    Raises:
        UserError: naming two trials and what they differ in.
    """
    known: dict[str, tuple[Path, object]] = {}
    for folder in folders:
        recipe = (read_json(RunFolder(folder).trial) or {}).get("recipe")
        if not isinstance(recipe, dict):
            continue  # the trial's own attempt says what is wrong
        for name, usual in (("cpu_threads", 1), ("portable", False)):
            value = recipe.get(name, usual)
            first, asked = known.setdefault(name, (folder, value))
            if value != asked:
                raise UserError(
                    f"lanes: {first.name} and {folder.name} are not for one process: "
                    f"recipe.{name} is {asked} and {value}"
                )


class _Lanes:
    """The threads of a process, and the trials that wait for one."""

    def __init__(
        self,
        trials: Sequence[LaneTrial],
        stop: Callable[[], bool],
        begins: Callable[[], bool],
        execution: Execution,
    ) -> None:
        self.states: dict[Path, str] = {}
        self._waiting = deque(trials)
        self._stop = stop
        self._begins = begins
        self._execution = execution
        self._threads: list[threading.Thread] = []
        self._steps = 0  # of one lane; of several, roughly

    def start(self, count: int) -> None:
        """Have `count` threads in all."""
        for number in range(len(self._threads), count):
            target, own = self._run, (_own_stream(),)
            thread = threading.Thread(target=target, args=own, name=f"lane {number}")
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Wait until all have ended."""
        for thread in self._threads:
            thread.join()

    @property
    def left(self) -> int:
        """Trials that wait."""
        return len(self._waiting)

    def warm_up(self) -> None:
        """Wait for the first lane's first steps, or for its end."""
        while self._threads[0].is_alive() and self._steps < WARM_UP:
            time.sleep(LOOK_SECONDS)

    def _run(self, stream: AbstractContextManager[object]) -> None:
        """Take one trial after another."""
        with stream:
            while not self._stop() and self._begins():
                try:
                    trial = self._waiting.popleft()
                except IndexError:
                    return
                self.states[trial.folder] = self._attempt(trial)

    def _attempt(self, trial: LaneTrial) -> str:
        """Run one attempt; whatever goes wrong stays in this lane."""
        folder = RunFolder(trial.folder)
        try:
            if not trial.wanted():
                return "elsewhere"
            print(f"lane: {folder.path.name} begins", flush=True)
            return run_attempt(folder.path, trial.ablation, self._execution, self._sign(folder))
        except Owned as error:
            print(error, flush=True)
            return "elsewhere"
        except Exception:  # the folder cannot be used: what else fails is written into it
            traceback.print_exc(file=sys.stdout)
            return "failed"

    def _sign(self, folder: RunFolder) -> Callable[[], bool]:
        """Return what a trial asks after every step: is it, or are all, to stop?"""
        looked, cancelled = time.monotonic(), False

        def asked() -> bool:
            nonlocal looked, cancelled
            self._steps += 1
            now = time.monotonic()
            if now - looked >= CANCEL_SECONDS:
                looked, cancelled = now, cancelled or folder.cancelled.exists()
            return cancelled or self._stop()

        return asked


def _own_stream() -> AbstractContextManager[object]:
    """Return the context of a lane's thread, in which all its kernels are launched."""
    if not torch.cuda.is_available():
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]

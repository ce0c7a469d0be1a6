"""Lanes: several trials in one process, one thread per trial.

Each lane has its own plan, checkpoint, run folder, log, Sacred run and failure. On a GPU each lane
also has its own CUDA stream, so that small kernels of different lanes overlap. Lanes use global
state of the process in turns (`gapbench.training.turn`), so a trial gives the same bits as alone.
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
        folder: the trial's run folder, with its trial.json.
        ablation: name of the Sacred experiment.
        wanted: function that says, when the trial's turn comes, whether this process has to run the
            trial; otherwise another process has the trial.
    """

    folder: Path
    ablation: str
    wanted: Callable[[], bool] = lambda: True


def lanes_that_fit(trials: int, first: int, free: int) -> int:
    """Return the number of lanes that fit a GPU, including the first lane.

    Args:
        trials: number of trials that are left, including the first lane's trial.
        first: bytes that the first lane has reserved.
        free: bytes that are free beside the first lane.
    """
    more = int(SHARE * free / (MARGIN * max(first, 1)))
    return max(1, min(trials, MOST, 1 + more))


def gpu_memory() -> tuple[int, int] | None:
    """Return the maximum reserved bytes and the free bytes of this GPU, or None without a GPU."""
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
    """Run trials in this process, `at_once` in parallel; a free lane takes the next trial.

    A trial that another process has is left to that process, so several processes may get the same
    trials.

    Args:
        trials: the trials, in the order of their start.
        at_once: number of lanes. By default as many as fit `memory`, estimated from the first
            lane's first steps; one lane without a GPU.
        stop: function that says after every step whether all lanes must write checkpoints and stop.
        name: name of the lanes, for `RunFolder.terminate_owner`.
        begins: function that says before every trial whether another trial may begin.
        memory: function that returns the maximum bytes that this process has reserved and the free
            bytes beside them, or None without a GPU.
        execution: settings of the execution of each trial.

    Returns:
        the state of every trial that was taken, as from `run_attempt`, or "elsewhere".

    Raises:
        UserError: if trials differ in global settings of the process: CPU threads, or kernels.
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
    """Check that all trials' recipes have the same settings for the whole process.

    Raises:
        UserError: naming two trials and their difference.
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
                    f"lanes: {first.name} and {folder.name} cannot share a process: "
                    f"recipe.{name} is {asked} and {value}"
                )


class _Lanes:
    """The threads of a process, and the trials that wait for a thread."""

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
        """Start threads until there are `count` threads."""
        for number in range(len(self._threads), count):
            target, own = self._run, (_own_stream(),)
            thread = threading.Thread(target=target, args=own, name=f"lane {number}")
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Wait until all threads have ended.

        Handlers of signals run in this thread. A signal that another thread received does not wake
        this thread: its handler runs at the next look.
        """
        for thread in self._threads:
            while thread.is_alive():
                thread.join(LOOK_SECONDS)

    @property
    def left(self) -> int:
        """Number of waiting trials."""
        return len(self._waiting)

    def warm_up(self) -> None:
        """Wait for the first lane's first steps, or for the end of the lane."""
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
        """Run one attempt; a failure does not affect other lanes."""
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
        """Return a function that says whether a trial, or all trials, must stop."""
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
    """Return the context of a lane's thread: on a GPU, a CUDA stream of the lane."""
    if not torch.cuda.is_available():
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]

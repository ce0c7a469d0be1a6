"""Trials for tests of lanes: a task whose network draws in every step, and lanes in a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from gapbench.execution.lanes import LaneTrial, run_lanes
from gapbench.execution.stopping import StopSign
from gapbench.execution.trial_run import Execution
from gapbench.launch.jobs import own_signals
from gapbench.runs.store import RunFolder
from gapbench.spec.grid import Entry
from gapbench.tasks.digits import Digits
from gapbench.tasks.task import task
from tests.runs import entry, prepared


@task("noisy_digits", version=1)
class NoisyDigits(Digits):
    """Digits whose network drops activations: whose numbers it draws shows in its bits."""

    def build_model(self) -> nn.Module:
        model: Any = super().build_model()
        model.layer3 = nn.Sequential(model.layer3, nn.Dropout(0.3))
        return model


def noisy(*sets: str, only: str) -> Entry:
    """Return a small trial of the noisy task: six epochs of ten steps."""
    return entry("main", "task=noisy_digits", "task_options.epoch_steps=10", *sets, only=only)


def folders(results: Path, entries: list[Entry]) -> list[RunFolder]:
    """Write the trials' folders."""
    return [prepared(results, chosen) for chosen in entries]


def in_lanes(places: list[RunFolder], at_once: int | None = None) -> list[str]:
    """Run trials as lanes until they end or a signal comes; return their states, in order."""
    stop = StopSign()
    trials = [LaneTrial(place.path, "tests") for place in places]
    execution = Execution(checkpoint_seconds=0.05)
    with own_signals():
        stop.raised_by_signals()
        states = run_lanes(trials, at_once or len(trials), stop=stop, execution=execution)
    return [states.get(place.path, "not begun") for place in places]

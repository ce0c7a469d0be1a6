"""Images a second of whole trials on a GPU: one alone, eager and captured, and lanes side by side.

    python -m benchmarks.gpu_lanes [--scale small] [--lanes 1 4 8 16] [--seconds 8] [--page FILE]

Needs CUDA; without it there is one line and exit code 2. The trials are RigL 12x and C-GaP of
ablations/partitions.yaml in turn, run by what runs every trial: stream, masks, history, heartbeat
and Sacred. A line counts the steps of all lanes from the moment when each has done 100
until `--seconds` later; an evaluation that falls between them is part of the time. The first line
is one trial with `GAPBENCH_EAGER=1`, and the last column compares with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch

from benchmarks.rows import tell
from gapbench.execution.lanes import LaneTrial, run_lanes
from gapbench.spec.grid import Entry
from gapbench.study import Study
from gapbench.training.step import EAGER

ABLATION = Path(__file__).parent.parent / "ablations" / "partitions.yaml"
ROWS = ("method=rigl", "epochs=12x"), ("method=c_gap", "partitions=4")
WARM = 100  # steps of each lane before anything is counted


class Clock:
    """Counts the steps of lanes, and asks them to stop.

    Args:
        lanes: that will come.
        seconds: from when all have come.
    """

    def __init__(self, lanes: int, seconds: float) -> None:
        self._lanes, self._seconds = lanes, seconds
        self._steps: Counter[int] = Counter()
        self._began: tuple[float, int] | None = None
        self.rate: float | None = None  # steps a second

    def stop(self) -> bool:
        """Count a step of the thread that asks, and say whether the time is over."""
        if self.rate is not None:
            return True
        self._steps[threading.get_ident()] += 1
        now, done = time.perf_counter(), self._steps.total()
        if self._began is None:
            come = len(self._steps) == self._lanes and min(self._steps.values()) >= WARM
            self._began = (now, done) if come else None
        elif now - self._began[0] >= self._seconds:
            self.rate = (done - self._began[1]) / (now - self._began[0])
        return self.rate is not None


def trials(scale: str, count: int) -> list[Entry]:
    """Return so many trials, the two rows in turn."""
    rows = [Study.read(ABLATION, scale=scale, only=row, seeds=(count + 1) // 2) for row in ROWS]
    alike = [
        [entry for entry in row.entries if entry.trial.sparsity == row.entries[0].trial.sparsity]
        for row in rows
    ]
    return [entry for pair in zip(*alike, strict=True) for entry in pair][:count]


def images_a_second(scale: str, lanes: int, seconds: float) -> float:
    """Return what `lanes` trials in this process do together.

    Raises:
        RuntimeError: if one of them ends before its time.
    """
    chosen, clock = trials(scale, lanes), Clock(lanes, seconds)
    with tempfile.TemporaryDirectory() as place:
        study = Study.read(ABLATION, scale=scale, results=place)
        for entry in chosen:
            study.folder(entry).prepare(entry.trial.document())
        taken = [LaneTrial(study.folder(entry).path, "lanes") for entry in chosen]
        states = run_lanes(taken, lanes, stop=clock.stop)
        if clock.rate is None or set(states.values()) != {"interrupted"}:
            raise RuntimeError(f"a lane did not train: {sorted(states.values())}")
    return clock.rate * chosen[0].trial.recipe.batch_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", default="small")
    parser.add_argument("--lanes", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=8.0, help="of a line")
    parser.add_argument("--page", type=Path, help="where the table is written too")
    given = parser.parse_args(arguments)
    if min(given.lanes) < 1 or given.seconds <= 0:
        parser.error("--lanes and --seconds must be positive")
    if not torch.cuda.is_available():
        print("gpu_lanes: needs a CUDA GPU, and torch sees none here", file=sys.stderr)
        return 2
    with mock.patch.dict(os.environ, {EAGER: "1"}):
        alone = images_a_second(given.scale, 1, given.seconds)
    lines = [("1 trial, eager", alone)]
    lines += [
        (f"{lanes} lane{'s' * (lanes > 1)}", images_a_second(given.scale, lanes, given.seconds))
        for lanes in given.lanes
    ]
    cells = [(name, f"{rate:.0f}", f"{rate / alone:.2f}") for name, rate in lines]
    tell((f"scale {given.scale}", "images/s", "times the first line"), cells, given.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How well a run tells its time: its first estimate, and the time that it took from there.

    python -m benchmarks.forecast [ablations/partitions.yaml] [--scale small] [--seeds 3]
        [--only sparsity=0,0.95] [--set KEY=VALUE] [--jobs N] [--lanes N] [--page FILE]

Trains all trials that are asked for, as `gapbench run` does, and removes their folder at the end.
On a GPU they share one process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.rows import tell
from gapbench.cli.progress import Progress, View
from gapbench.errors import UserError
from gapbench.launch.following import follow
from gapbench.study import Study


def measured(
    study: Study, jobs: int | None, lanes: int | None
) -> tuple[float, float, Sequence[str]]:
    """Run all trials of a study.

    Returns:
        the estimate and the time that was left, in seconds from the same moment; the states.

    Raises:
        UserError: if all trials ended before there was an estimate.
    """
    todo = study.todo()
    epochs = {entry.trial.key: entry.trial.plan.epochs for entry in todo.entries}
    folders = {study.folder(entry): entry.label for entry in todo.entries}
    first: tuple[float, float] | None = None
    with Progress(Console(force_terminal=False), epochs) as progress:

        def show() -> None:
            nonlocal first
            progress.show([View.of(folder, label) for folder, label in folders.items()])
            if first is None and progress.expected is not None:
                first = progress.expected, time.monotonic()

        started = study.start(todo, "local", jobs=jobs, lanes=lanes)
        if started is not None:
            follow(started, lambda: False, show)
    if first is None:
        raise UserError("all trials ended before there was an estimate: ask for more trials")
    return first[0], time.monotonic() - first[1], [folder.state() for folder in folders]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; return the exit code, 1 if a trial failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("ablation", nargs="?", default="ablations/partitions.yaml")
    parser.add_argument("--scale", default="small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["sparsity=0,0.95"])
    parser.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--page", type=Path, help="where the table is written too")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as results:
        try:
            study = Study.read(
                given.ablation,
                scale=given.scale,
                seeds=given.seeds,
                only=given.only,
                settings=given.set,
                results=results,
            )
            told, took, states = measured(study, given.jobs, given.lanes)
        except UserError as error:
            print(f"forecast: {error}", file=sys.stderr)
            return 2
    name = f"{study.ablation.name}, scale {given.scale}, {len(states)} trials"
    cells = (name, f"{told:.0f}", f"{took:.0f}", f"{took / told:.2f}")
    tell(("run", "estimate (s)", "took (s)", "took / estimate"), [cells], given.page)
    return int(set(states) != {"completed"})


if __name__ == "__main__":
    sys.exit(main())

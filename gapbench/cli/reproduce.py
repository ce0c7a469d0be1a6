"""`gapbench reproduce`: run a trial again in another folder, and compare both results."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gapbench.cli import terminal
from gapbench.cli.options import RESULTS, ExecutorOption, KeyArgument, ResultsOption
from gapbench.errors import UserError

if TYPE_CHECKING:
    from gapbench.launch.jobs import Launch
    from gapbench.runs.store import RunFolder
    from gapbench.spec.trials import Trial


def add_to(app: typer.Typer) -> None:
    """Add the command `reproduce`."""
    app.command()(reproduce)


def reproduce(
    key: KeyArgument, results: ResultsOption = RESULTS, executor: ExecutorOption = "auto"
) -> int:
    """Run a completed trial again in a new folder, and compare; exit code 0: equal, 1: different.

    On another kind of machine, the result must lie in the interval of the other seeds of its row.
    """
    from gapbench.analysis.collect import read_run
    from gapbench.analysis.reproduction import compared, find_original
    from gapbench.study import executor_for

    original = find_original(results, key)
    name, reason = executor_for(executor)
    finished = original.values.get("run/finished") or "at an unknown time"
    print(f"original: {original.place}, finished {finished}")
    print(f"again: {original.trial.label}, executor {name} ({reason})", flush=True)
    folder = _run_again(results, original.trial, name)
    again = read_run(folder)
    if again is None:
        error = folder.read_status().get("error") or "no error was recorded"
        print(f"{folder.state()}: {error}; run folder: {folder.path}")
        return 1
    found = compared(original, again)
    for line in found.lines():
        print(line)
    if not found.agrees:
        print(f"the second run is kept: {folder.path}")
        return 1
    shutil.rmtree(_place_of(folder))
    return 0


def _run_again(results: Path, trial: Trial, executor: str) -> RunFolder:
    """Run a trial in a new results folder and return its run folder.

    The new folder is a hidden folder among the run folders: the nodes of a cluster can see it, and
    reports ignore it.

    Raises:
        UserError: if the folder cannot be written.
    """
    from gapbench.launch.jobs import launch
    from gapbench.runs.store import RunFolder
    from gapbench.spec.grid import Entry
    from gapbench.study import job_of

    try:
        (results / "runs").mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".reproduce-", dir=results / "runs"))
    except OSError as error:
        raise UserError(f"{results / 'runs'}: cannot be written: {error.strerror}") from None
    folder = RunFolder(place / "runs" / trial.key)
    try:
        job = job_of(place, "reproduce", Entry(trial, trial.name, trial.label), 1)
        started = launch(executor, [job], 1, **({"profile": None} if executor == "slurm" else {}))
        _follow(started, folder, trial)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return folder


def _follow(started: Launch, folder: RunFolder, trial: Trial) -> None:
    """Show the run until its end; if the user interrupts, stop the run and exit."""
    from gapbench.cli.progress import Progress, View
    from gapbench.launch.following import follow

    with Progress(terminal.console(), {trial.key: trial.plan.epochs}) as progress:
        try:
            follow(started, lambda: False, lambda: progress.show([View.of(folder, trial.label)]))
        except KeyboardInterrupt:
            started.stop()
            raise


def _place_of(folder: RunFolder) -> Path:
    return folder.path.parent.parent

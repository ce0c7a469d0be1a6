"""`python -m gapbench.run FILE` and `gapbench run FILE`: read, expand, launch, follow, report."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gapbench.cli import terminal
from gapbench.cli.guard import guarded
from gapbench.cli.options import (
    RESULTS,
    ExecutorOption,
    OnlyOption,
    ResultsOption,
    ScaleOption,
    SeedsOption,
    SetOption,
)
from gapbench.errors import UserError
from gapbench.experiments.selection import expanded, tell_left_out

if TYPE_CHECKING:
    from rich.console import Console

    from gapbench.experiments.ablation import Ablation
    from gapbench.experiments.grid import Entry
    from gapbench.experiments.schema import Scale
    from gapbench.experiments.store import RunFolder
    from gapbench.launch.jobs import Job, Launch
    from gapbench.launch.queue import Queue

POLL_SECONDS = 0.25


def add_to(app: typer.Typer) -> None:
    """Add the command `run`."""
    app.command("run")(run)


def run(
    file: Annotated[Path, typer.Argument(help="The ablation, such as ablations/partitions.yaml.")],
    scale: ScaleOption = "mini",
    executor: ExecutorOption = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials side by side; as many as fit by default.")
    ] = None,
    branches: Annotated[
        int, typer.Option(min=1, help="Processes for the branches of one P-GaP round.")
    ] = 1,
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show the plan; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    results: ResultsOption = RESULTS,
    profile: Annotated[
        Path | None, typer.Option(help="Cluster profile: partition, account, ...")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once the trials are submitted.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Forget what these trials have done; start over.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run only those that have failed before.")
    ] = False,
) -> int:
    """Run an ablation. Running it again does only what is missing: interrupted trials go on."""
    from gapbench.report.section import require_section

    ablation, chosen, entries = expanded(file, scale, set_ or [], only or [], seeds)
    tell_left_out(ablation, chosen, only or [])
    require_section(ablation, entries)
    if dry_run:
        return show_plan(entries, as_json)
    console = _console(as_json)
    name, reason = executor_for(executor)
    if detach and name != "slurm":
        raise UserError(f"--detach: the executor {name} ends with this command; use slurm")
    todo = _to_do(results, entries, force, retry_failed, attach=name == "slurm")
    _header(console, ablation, scale, entries, todo, f"{name} ({reason})")
    options = {"profile": profile} if name == "slurm" else {}
    started = _start(results, ablation, todo, name, jobs, branches, options)
    if started is not None and detach:
        console.print("submitted; follow with `gapbench status --watch`")
        return 0
    if started is not None and not _follow(console, results, todo, started):
        return 130
    reported = Reported(ablation, chosen, entries)
    return _conclude(console, reported, [*todo.entries, *todo.elsewhere], results, as_json)


@dataclass(frozen=True)
class Reported:
    """What is reported at the end: trials of an ablation."""

    ablation: Ablation
    scale: Scale
    entries: list[Entry]


@dataclass(frozen=True)
class ToDo:
    """What is left of an ablation: trials to run, those done, and those others run now.

    Attributes:
        forget: folders of those to run whose earlier attempts are to be forgotten.
    """

    entries: list[Entry]
    done: int
    elsewhere: list[Entry]
    forget: list[RunFolder]


def show_plan(entries: Sequence[Entry], as_json: bool) -> int:
    """Print what the trials will do and cost."""
    from gapbench.experiments.dry_run import dry_run

    outlooks = dry_run(entries)
    if as_json:
        # a line a trial: indented, ten thousand take seconds
        print("[" + ",\n".join(json.dumps(outlook.as_dict()) for outlook in outlooks) + "]")
        return 0
    from gapbench.cli.columns import Column, table_text

    headings = ("epochs", "wall", "train FLOPs", "inference", "density", "model", "coverage")
    columns = [Column("trial", wraps=True), *(Column(heading, right=True) for heading in headings)]
    rows = [
        (
            outlook.label,
            str(outlook.epochs),
            str(outlook.wall_epochs),
            _ratio(outlook.train_flops_ratio),
            _ratio(outlook.inference_flops_ratio),
            f"{outlook.prunable_density:.3f}",
            f"{outlook.model_density:.3f}",
            "*" if outlook.coverage is None else f"{outlook.coverage:.3f}",
        )
        for outlook in outlooks
    ]
    console = _console(False)
    console.print(table_text(columns, rows, console.width), soft_wrap=True)
    console.print(
        f"{len(outlooks)} trials, {sum(o.epochs for o in outlooks)} machine-epochs. FLOPs are "
        "multiples of the task's dense recipe and of dense inference; * is known after the run."
    )
    return 0


def _ratio(value: float | None) -> str:
    return "*" if value is None else f"{value:.3f}x"


def _console(as_json: bool) -> Console:
    return terminal.console(stderr=as_json)


def executor_for(name: str) -> tuple[str, str]:
    """Return the executor to use for what was asked, and why."""
    if name != "auto":
        return name, "as asked"
    if "SLURM_JOB_ID" in os.environ:
        return "local", "inside a SLURM job"
    from gapbench.launch.queue import usable

    cluster, why = usable()
    return ("slurm" if cluster else "local"), why


def _to_do(
    results: Path, entries: Sequence[Entry], force: bool, only_failed: bool, attach: bool
) -> ToDo:
    """Sort trials into those to run, those completed, and those that others run.

    With `only_failed` only those that have failed are to run or to wait for.
    With `attach` those that SLURM has already are to run too, which then means to follow them.
    """
    from gapbench.experiments.store import RunFolder
    from gapbench.launch.queue import Queue
    from gapbench.launch.submissions import look

    todo: list[Entry] = []
    elsewhere: list[Entry] = []
    forget: list[RunFolder] = []
    done = 0
    folders = [RunFolder(results / "runs" / entry.trial.key) for entry in entries]
    for entry, folder, sight in zip(entries, folders, look(folders, Queue()), strict=True):
        if sight.state == "completed" and (only_failed or not force):
            done += 1
        elif only_failed and sight.state != "failed":
            continue
        elif sight.state in ("running", "queued"):
            # one that waits without a job is just being submitted by another launcher
            follow = attach and (sight.job or sight.state == "queued")
            (todo if follow else elsewhere).append(entry)
        else:
            todo.append(entry)
            if force:
                forget.append(folder)
    if elsewhere and not todo:
        raise UserError(
            f"{results}: all {len(elsewhere)} trials that are left are being run by another "
            f"process: {elsewhere[0].label}; follow them with `gapbench status --watch`"
        )
    return ToDo(todo, done, elsewhere, forget)


def job_of(results: Path, ablation: str, entry: Entry, branches: int) -> Job:
    """Write a trial's folder and return what launches it."""
    from gapbench.experiments.store import RunFolder
    from gapbench.launch.jobs import Job

    folder = RunFolder(results / "runs" / entry.trial.key)
    folder.prepare(entry.trial.document())
    task = entry.trial.proxy.task
    recipe = entry.trial.recipe
    return Job(
        folder=folder.path.resolve(),
        ablation=ablation,
        label=entry.label,
        resources=task.resources,
        threads=recipe.cpu_threads,
        branches=branches,
        ranks=entry.trial.ranks,
        portable=recipe.portable,
        plan=entry.trial.plan,
    )


def _header(
    console: Console, ablation: Ablation, scale: str, entries: Sequence[Entry], todo: ToDo, by: str
) -> None:
    machine_epochs = sum(entry.trial.plan.epochs for entry in todo.entries)
    console.print(
        f"{ablation.name} at scale {scale}: {len(entries)} trials, {todo.done} done, "
        f"{len(todo.entries)} to run ({machine_epochs} machine-epochs), executor {by}",
        soft_wrap=True,
    )
    for entry in todo.elsewhere:
        console.print(f"left to the process or job that has it: {entry.label}", soft_wrap=True)


def _start(
    results: Path,
    ablation: Ablation,
    todo: ToDo,
    executor: str,
    parallel: int | None,
    branches: int,
    options: dict[str, Path | None],
) -> Launch | None:
    """Launch what is to do; what is forgotten comes back where the launcher refuses."""
    from gapbench.launch.jobs import launch

    if not todo.entries:
        return None
    with ExitStack() as stack:
        for folder in todo.forget:
            stack.enter_context(folder.forgotten())
        work = [job_of(results, ablation.name, entry, branches) for entry in todo.entries]
        return launch(executor, work, parallel, **options)


def _follow(console: Console, results: Path, todo: ToDo, started: Launch) -> bool:
    """Follow trials to their end, those of others too; return False if the user interrupts."""
    from gapbench.cli.progress import Progress, View
    from gapbench.experiments.store import RunFolder
    from gapbench.launch.queue import Queue

    own, others = (
        {RunFolder(results / "runs" / entry.trial.key): entry.label for entry in entries}
        for entries in (todo.entries, todo.elsewhere)
    )
    queue = Queue()
    with Progress(console, len(own) + len(others)) as progress:
        try:
            going = True
            while going:
                # another launcher may have been quicker with one of ours: it is waited for as well
                going = started.poll() or _any_going([*own, *others], queue)
                views = [View.of(folder, label) for folder, label in own.items()]
                progress.show([*views, *View.all_of(others, queue)])
                if going:
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            console.print("interrupted ...")
            console.print(started.stop())
            return False
    return True


def _any_going(folders: Sequence[RunFolder], queue: Queue) -> bool:
    from gapbench.launch.submissions import look

    return any(sight.state in ("running", "queued") for sight in look(folders, queue))


def _conclude(
    console: Console, reported: Reported, asked: Sequence[Entry], results: Path, as_json: bool
) -> int:
    """Report, say what was asked for and has not completed, and return the exit code."""
    from gapbench.cli.status import last_words
    from gapbench.experiments.store import RunFolder
    from gapbench.report.build import report

    made = report(reported.ablation, reported.scale, reported.entries, results)
    if as_json:
        print(json.dumps(made.as_dict(), indent=1))
    else:
        console.print(made.renderable())
        console.print(f"report: {made.folder}", soft_wrap=True)
    told: dict[tuple[str, str], list[Entry]] = {}
    damaged = {left.place: left.reason for left in made.left_out if not left.unfinished}
    for entry in reported.entries:
        if (reason := damaged.get(f"runs/{entry.trial.key}")) is not None:
            folder = RunFolder(results / "runs" / entry.trial.key)
            told["unusable", f"{reason}: delete {folder.path} and run again"] = [entry]
    for entry in asked:
        folder = RunFolder(results / "runs" / entry.trial.key)
        state = folder.state()
        if state != "completed":
            error = folder.read_status().get("error") or last_words(folder)
            told.setdefault((state, error), []).append(entry)
    where = "" if results == RESULTS else f" --results {shlex.quote(str(results))}"
    for (how, error), (first, *others) in told.items():
        words = f"{how}: {first.label}: {error} (gapbench logs {first.trial.key}{where})"
        console.print(words, soft_wrap=True)
        if others:
            names = "; ".join(entry.label for entry in others)
            console.print(f"{how} likewise: {names}", soft_wrap=True)
    return 1 if told else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this command alone."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    add_to(app)
    return guarded(app, sys.argv[1:] if arguments is None else arguments)

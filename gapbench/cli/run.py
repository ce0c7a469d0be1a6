"""`python -m gapbench.run FILE` and `gapbench run FILE`: read, expand, launch, follow, report."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapbench.analysis.looks import LOOKS
from gapbench.cli import terminal
from gapbench.cli.guard import guarded
from gapbench.cli.options import (
    RESULTS,
    ExecutorOption,
    LanesOption,
    OnlyOption,
    ResultsOption,
    ScaleOption,
    SeedsOption,
    SetOption,
)
from gapbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gapbench.launch.jobs import Launch
    from gapbench.report.build import ReportResult
    from gapbench.spec.grid import Entry
    from gapbench.study import Study, ToDo


def add_to(app: typer.Typer) -> None:
    """Add the command `run`."""
    app.command("run")(run)


def run(
    file: Annotated[Path, typer.Argument(help="An ablation: its file, or a name: partitions.")],
    scale: ScaleOption = "mini",
    executor: ExecutorOption = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials side by side; by default as many as fit.")
    ] = None,
    branches: Annotated[
        int, typer.Option(min=1, help="Processes for the branches of one P-GaP round.")
    ] = 1,
    lanes: LanesOption = None,
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    until_resolved: Annotated[
        bool,
        typer.Option(
            "--until-resolved",
            help="Run the rows of open claims, look by look, until the claims are answered.",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None,
        typer.Option(
            min=LOOKS[0][0], max=LOOKS[-1][0], help="Most seeds of a row with --until-resolved."
        ),
    ] = None,
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
        bool, typer.Option("--force", help="Delete earlier work of these trials; start over.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run only trials that failed before.")
    ] = False,
) -> int:
    """Run an ablation. A repeated run trains missing trials only and resumes interrupted trials."""
    from gapbench.study import Study, executor_for

    picked: dict[str, Any] = {"scale": scale, "only": only or (), "settings": set_ or ()}
    picked["results"] = results
    study = Study.read(file, seeds=seeds, **picked)
    others = {"--seeds": seeds is not None, "--detach": detach, "--force": force,
              "--retry-failed": retry_failed}  # fmt: skip
    _require_looks(until_resolved, others, max_seeds)
    name, reason = executor_for(executor)
    _require_executor(name, detach, lanes, profile)
    if until_resolved:
        whole = Study.read(file, seeds=max_seeds or LOOKS[-1][0], **picked)
        if dry_run:
            return _show_looks(whole, as_json)
    console = _console(as_json)
    launching: dict[str, Any] = {"jobs": jobs, "branches": branches, "profile": profile}
    if dry_run:
        told = name == "slurm" and not as_json
        return show_plan(study.entries, as_json, study.slurm_jobs(**launching) if told else "")
    launching["lanes"] = lanes
    if until_resolved:
        asked = _look_by_look(console, whole, (name, reason), launching)
        return 130 if asked is None else _conclude(console, study, asked, as_json)
    todo = study.todo(
        force=force, retry_failed=retry_failed, attach=name == "slurm", tell=console.print
    )
    started = _start(console, study, todo, (name, reason), launching)
    if started is not None and detach:
        console.print("follow with `gapbench status --watch`")
        return 0
    if started is not None and not _follow(console, study, todo, started):
        return 130
    return _conclude(console, study, [*todo.entries, *todo.elsewhere], as_json)


def _require_looks(until_resolved: bool, others: dict[str, bool], max_seeds: int | None) -> None:
    """Check that options about looks go together with the `others` that were given."""
    if until_resolved and any(others.values()):
        given = next(option for option, there in others.items() if there)
        raise UserError(f"--until-resolved: picks the trials itself: leave {given} out")
    if max_seeds is not None and not until_resolved:
        raise UserError("--max-seeds: needs --until-resolved: --seeds sets the number of seeds")


def _require_executor(name: str, detach: bool, lanes: int | None, profile: Path | None) -> None:
    """Check that an executor supports the requested options."""
    if detach and name != "slurm":
        raise UserError(f"--detach: the executor {name} ends with this command: use slurm")
    if profile is not None and name != "slurm":
        raise UserError(f"--profile: the executor {name} submits nothing to SLURM: use slurm")
    if lanes is not None and name != "local":
        raise UserError(f"--lanes: the executor {name} has no lanes: use local")


def _look_by_look(
    console: Console, whole: Study, executor: tuple[str, str], launching: dict[str, Any]
) -> list[Entry] | None:
    """Run the trials of each look at open claims; return them, or None if the user interrupts."""
    asked: dict[str, Entry] = {}
    part = whole.next_look()
    while part is not None:
        try:
            todo = part.todo(attach=executor[0] == "slurm", tell=console.print)
        except UserError as error:  # others run all that is left: what is known is told
            if not asked:
                raise
            console.print(str(error), soft_wrap=True)
            break
        started = _start(console, part, todo, executor, launching)
        if started is not None and not _follow(console, part, todo, started):
            return None
        asked |= {entry.trial.key: entry for entry in part.entries}
        part = whole.next_look(asked)
    return list(asked.values())


def _show_looks(study: Study, as_json: bool) -> int:
    """Print the trials that open claims need at most, and if the measured differences are true."""
    likely, most = study.all_looks()
    show_plan(most.entries, as_json)
    if not as_json:
        epochs = sum(entry.trial.plan.epochs for entry in likely.entries)
        _console(False).print(
            "The open claims need at most these trials. If the measured differences are true, "
            f"{len(likely.entries)} trials ({epochs} machine-epochs) answer the claims."
        )
    return 0


def show_plan(entries: Sequence[Entry], as_json: bool, jobs: str = "") -> int:
    """Print the plans and costs of the trials, and their SLURM jobs."""
    from gapbench.spec.dry_run import dry_run

    forecasts = dry_run(entries)
    if as_json:
        # one line per trial: indented JSON of ten thousand trials takes seconds
        print("[" + ",\n".join(json.dumps(forecast.as_dict()) for forecast in forecasts) + "]")
        return 0
    from gapbench.analysis.published import published_times
    from gapbench.cli.columns import Column, table_text

    headings = ("epochs", "×1x", "paper", "wall", "train FLOPs", "inference", "coverage")
    columns = [Column("trial", wraps=True), *(Column(heading, right=True) for heading in headings)]
    rows = [
        (
            forecast.label,
            str(forecast.epochs),
            f"{forecast.times:.3g}",
            published_times(forecast.task, forecast.method, forecast.times) or "–",
            str(forecast.wall_epochs),
            _ratio(forecast.train_flops_ratio),
            _ratio(forecast.inference_flops_ratio),
            "*" if forecast.coverage is None else f"{forecast.coverage:.3f}",
        )
        for forecast in forecasts
    ]
    console = _console(False)
    console.print(table_text(columns, rows, console.width), soft_wrap=True)
    console.print(
        f"{len(forecasts)} trials, {sum(o.epochs for o in forecasts)} machine-epochs. FLOPs are "
        "multiples of the task's dense recipe and of dense inference; * is known after the run. "
        "×1x: multiples of the task's own epochs; paper: multiples in the published tables."
    )
    if jobs:
        console.print(f"SLURM gets {jobs}.")
    return 0


def _ratio(value: float | None) -> str:
    return "*" if value is None else f"{value:.3f}x"


def _console(as_json: bool) -> Console:
    return terminal.console(stderr=as_json)


def _start(
    console: Console,
    study: Study,
    todo: ToDo,
    executor: tuple[str, str],
    launching: dict[str, Any],
) -> Launch | None:
    """Print the trials to run, the executor and the reason for it; launch the trials."""
    name, reason = executor
    machine_epochs = sum(entry.trial.plan.epochs for entry in todo.entries)
    console.print(
        f"{study.ablation.name} at scale {study.scale}: {len(study.entries)} trials, {todo.done} "
        f"done, {len(todo.entries)} to run ({machine_epochs} machine-epochs), executor {name} "
        f"({reason})",
        soft_wrap=True,
    )
    for entry in todo.elsewhere:
        console.print(f"left to another process or job: {entry.label}", soft_wrap=True)
    started = study.start(todo, name, **launching)
    if started is not None and started.told:
        console.print(f"submitted {started.told}")
    return started


def _follow(console: Console, study: Study, todo: ToDo, started: Launch) -> bool:
    """Follow trials of all processes to their end; return False if the user interrupts."""
    from gapbench.cli.progress import Progress, View
    from gapbench.launch.following import follow
    from gapbench.launch.queue import Queue

    own, others = (
        {study.folder(entry): entry.label for entry in entries}
        for entries in (todo.entries, todo.elsewhere)
    )
    queue = Queue()
    epochs = {e.trial.key: e.trial.plan.epochs for e in (*todo.entries, *todo.elsewhere)}
    with Progress(console, epochs) as progress:

        def show() -> None:
            views = [View.of(folder, label) for folder, label in own.items()]
            progress.show([*views, *View.all_of(others, queue)])

        try:
            follow(started, lambda: study.going(todo, queue), show)
        except KeyboardInterrupt:
            console.print("interrupted ...")
            console.print(started.stop())
            return False
    return True


def _conclude(console: Console, study: Study, asked: Sequence[Entry], as_json: bool) -> int:
    """Write the report, print requested trials that have not completed, return the exit code."""
    from gapbench.cli.status import last_words

    made = study.report()
    if as_json:
        print(json.dumps(made.as_dict(), indent=1))
    else:
        console.print(made.renderable())
        console.print(f"report: {made.folder}", soft_wrap=True)
        console.print(_in_one_line(made, asked, study), soft_wrap=True)
    if console.is_terminal:
        console.bell()
    told: dict[tuple[str, str], list[Entry]] = {}
    damaged = {left.place: left.reason for left in made.left_out if not left.unfinished}
    for entry in {entry.trial.key: entry for entry in (*study.entries, *asked)}.values():
        if (reason := damaged.get(f"runs/{entry.trial.key}")) is not None:
            place = study.folder(entry).path
            told["unusable", f"{reason}: delete {place} and run again"] = [entry]
    for entry in asked:
        folder = study.folder(entry)
        state = folder.state()
        if state != "completed":
            error = folder.read_status().get("error") or last_words(folder)
            told.setdefault((state, error), []).append(entry)
    where = "" if study.results == RESULTS else f" --results {shlex.quote(str(study.results))}"
    for (how, error), (first, *others) in told.items():
        words = f"{how}: {first.label}: {error} (gapbench logs {first.trial.key}{where})"
        console.print(words, soft_wrap=True)
        if others:
            names = "; ".join(entry.label for entry in others)
            console.print(f"{how} likewise: {names}", soft_wrap=True)
    return 1 if told else 0


def _in_one_line(made: ReportResult, asked: Sequence[Entry], study: Study) -> str:
    """Return a line with the completed trials, the answers to the claims, and the page's path."""
    asked = asked or study.entries  # all had completed before
    done = sum(study.folder(entry).completed() for entry in asked)
    answers = Counter(answer.verdict for answer in made.evaluation.answers)
    words = ", ".join(f"{count} {answer}" for answer, count in answers.most_common())
    told = f"; claims: {words}" if words else ""
    return f"{done} of {len(asked)} trials have completed{told}; page: {made.page}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `gapbench run` alone."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    add_to(app)
    return guarded(app, sys.argv[1:] if arguments is None else arguments)

"""`gapbench report`, `export`, `list`, `prepare`, `doctor` and `schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gapbench.errors import NotInstalled, UserError, choose
from gapbench.options import (
    RESULTS,
    KeyArgument,
    OnlyOption,
    ResultsOption,
    ScaleOption,
    SeedsOption,
    SetOption,
)
from gapbench.selection import expanded, is_selection, tell_left_out
from gapbench.status import find

KINDS = ("methods", "tasks", "distributions", "executors", "figures", "ablations")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, export, prepare, doctor, schema):
        app.command()(command)
    app.command("list")(list_names)


def report(
    files: Annotated[list[Path], typer.Argument(help="Ablations, such as ablations/*.yaml.")],
    scale: ScaleOption = "mini",
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    results: ResultsOption = RESULTS,
) -> int:
    """Make tables and figures from the run folders that are there; nothing is trained."""
    from rich.console import Console

    from gapbench.report.build import report as build

    console = Console(highlight=False)
    for file in files:
        try:
            ablation, chosen, entries = expanded(file, scale, set_ or (), only or (), seeds)
        except NotInstalled as error:
            print(f"{file} is left out: {error}", file=sys.stderr)
            continue
        tell_left_out(ablation, chosen, only or ())
        selection = is_selection(ablation, chosen, set_, only, seeds)
        made = build(ablation, chosen, entries, results, selection=selection)
        console.print(made.renderable())
        console.print(f"report: {made.folder}", soft_wrap=True)
    return 0


def export(
    key: KeyArgument,
    form: Annotated[
        str,
        typer.Option("--format", help="sparse (safetensors), or dense: torchvision's, fairseq's."),
    ] = "sparse",
    out: Annotated[Path | None, typer.Option(help="The file; KEY.safetensors or KEY.pt.")] = None,
    results: ResultsOption = RESULTS,
) -> int:
    """Write the model of a completed trial as one file."""
    from gapbench.export import SUFFIXES
    from gapbench.export import export as write

    folder = find(results, key)
    known = next((name for name in SUFFIXES if name == form), None)
    if known is None:
        raise UserError(f"--format: {choose('format', form, SUFFIXES)}")
    done = write(folder, known, out or Path(folder.path.name + SUFFIXES[known]))
    share = f"{done.size / done.dense:.1%} of the {done.dense:,} of its dense tensors"
    print(f"{done.path}: {done.size:,} bytes, {share}".replace("%", " %"))
    return 0


def prepare(
    file: Annotated[Path, typer.Argument(help="The ablation whose data are needed.")],
    scale: ScaleOption = "mini",
    only: OnlyOption = None,
    data: Annotated[Path | None, typer.Option(help="Folder for the data.")] = None,
) -> int:
    """Get and check the data of an ablation, on a machine that has a network."""
    entries = expanded(file, scale, [], only or [], None)[2]
    tasks = {entry.trial.task: entry.trial.make_task() for entry in entries}
    for name, task in sorted(tasks.items()):
        task.prepare(data)
        print(f"{name}: the data are there")
    return 0


def list_names(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS) + ".")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List what is registered under a kind, or the ablations here."""
    names = list(_names(kind))
    print(json.dumps(names) if as_json else "\n".join(names))
    return 0


def _names(kind: str) -> Iterator[str]:
    match kind:
        case "methods":
            from gapbench.methods.method import methods

            yield from methods
        case "tasks":
            from gapbench.tasks.task import tasks

            yield from tasks
        case "distributions":
            from gapbench.sparsity.distributions import distributions

            yield from distributions
        case "executors":
            from gapbench.launch.jobs import executors

            yield from executors
        case "figures":
            from gapbench.report.figures import figures

            yield from figures
        case "ablations":
            yield from (str(path) for path in sorted(Path("ablations").glob("*.yaml")))
        case _:
            raise UserError(choose("kind", kind, KINDS))


def doctor(results: ResultsOption = RESULTS) -> int:
    """Check what a run needs on this machine, and say what is missing."""
    from gapbench.doctor import checks

    failed = 0
    for check in checks(results):
        failed += check.state == "missing"
        print(f"{check.state:<8} {check.name}: {check.detail}")
    return 1 if failed else 0


def schema() -> int:
    """Print the JSON Schema of ablation files, for editors."""
    from gapbench.experiments.editors import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0

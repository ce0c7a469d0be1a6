"""`gapbench report`, `claims`, `export`, `list`, `prepare`, `doctor` and `schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gapbench import terminal
from gapbench.errors import NothingFound, NotInstalled, UserError, choose
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
from gapbench.status import find, require_folder

if TYPE_CHECKING:
    from gapbench.experiments.ablation import Ablation
    from gapbench.report.build import ReportResult
    from gapbench.report.collect import Scan

KINDS = ("methods", "tasks", "distributions", "executors", "figures", "ablations")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, claims, export, prepare, doctor, schema):
        app.command()(command)
    app.command("list")(list_names)
    folders = typer.Typer(help="What is done to run folders.", no_args_is_help=True)
    folders.command()(migrate)
    folders.callback()(_runs)
    app.add_typer(folders, name="runs")


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Ablations; all of ablations/ if none is given.")
    ] = None,
    scale: ScaleOption = "mini",
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    results: ResultsOption = RESULTS,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; compare the tables with their runs.csv."),
    ] = False,
) -> int:
    """Make tables, figures and a page from the run folders that are there; nothing is trained."""
    from gapbench.report.answers import write_answers
    from gapbench.report.build import completed
    from gapbench.report.collect import scan
    from gapbench.report.page import PAGE, write_page

    given = files or sorted(Path("ablations").glob("*.yaml"))
    if not given:
        raise UserError("ablations/*.yaml: there is no ablation here: name the file of one")
    if check:
        if set_ or only or seeds is not None:
            raise UserError("--check: compares whole reports: leave --set, --only and --seeds out")
        return _check(given, scale, results, every=bool(files))
    ablations = _ablations(given)
    if results != RESULTS:
        require_folder(results)
    console, found = terminal.console(), scan(results)
    if found.damaged:
        first = found.damaged[0]
        told = f"run folders that cannot be used: {len(found.damaged)}, such as {first.place}"
        print(f"{told}: {first.reason}; the page lists all", file=sys.stderr)
    made = []
    for file in given:
        try:
            one = _report_one(file, (scale, set_ or (), only or (), seeds), results, found)
        except NotInstalled as error:
            print(f"{file} is left out: {error}", file=sys.stderr)
            continue
        except NothingFound as error:
            if files:
                raise
            print(f"left out: {error}", file=sys.stderr)
            continue
        made.append(one)
        if files or completed(one.frame):
            console.print(one.renderable())
        else:
            console.print(f"{one.spec.name}: no trial of it has completed at scale {scale}")
        console.print(one.place, soft_wrap=True)
    whole = not files and len(made) == len(given) and all(one.whole for one in made)
    for shown in [made] if whole else [[one] for one in made]:
        folder = results / scale if whole else shown[0].folder
        title = f"gapbench, scale {scale}" if whole else f"{shown[0].spec.name}, scale {scale}"
        page = write_page(shown, title, found, folder / PAGE)
        console.print(f"page: {page}", soft_wrap=True)
    if made and not (files or set_ or only) and seeds is None:
        path = write_answers(results, scale, [ablation.spec for ablation in ablations])
        console.print(f"answers: {path}", soft_wrap=True)
    return 0 if made else 2


def _report_one(
    file: Path,
    picked: tuple[str, Sequence[str], Sequence[str], str | None],
    results: Path,
    found: Scan,
) -> ReportResult:
    """Write the report of one ablation.

    Raises:
        NotInstalled: if a package that all its rows need is missing.
        NothingFound: if `picked` fits no trial, or all that is reported of it ran elsewhere.
        UserError: about whatever does not fit.
    """
    from gapbench.report.build import report as build
    from gapbench.report.collect import RUNS, completed_keys

    ablation, scale, entries = expanded(file, *picked)
    folder = results / scale / ablation.name
    reported = completed_keys(folder / RUNS)
    if reported and not any(entry.trial.key in found.runs for entry in entries):
        reason = f"no run folder of its trials is in {results}; {folder} stays as it is"
        raise NothingFound(f"{file}: {reason}")
    _, set_, only, seeds = picked
    tell_left_out(ablation, scale, only)
    selection = is_selection(ablation, scale, set_, only, seeds)
    return build(ablation, scale, entries, results, found, selection=selection)


def _ablations(files: Sequence[Path]) -> list[Ablation]:
    """Read ablations.

    Raises:
        UserError: if two have one name, and would share a folder of results; or about a file.
    """
    from gapbench.experiments.ablation import read

    known: dict[str, Path] = {}
    ablations = [read(file) for file in files]
    for file, ablation in zip(files, ablations, strict=True):
        first = known.setdefault(ablation.name, file)
        if first != file:
            words = f"name: {ablation.name!r} is that of {first} too: choose another"
            raise UserError(f"{file}: {words}")
    return ablations


def _runs() -> None:
    """Keep `migrate` a command of its own, which typer would merge into a group of one."""


def migrate(results: ResultsOption = RESULTS) -> int:
    """Give the trials of earlier versions the keys of this one, bit for bit the same results."""
    from gapbench.experiments.migrate import migrate as renew

    require_folder(results)
    stays = 0
    for found in renew(results):
        stays += found.key is None
        told = f"is {found.key}" if found.key else f"stays: {found.reason}"
        print(f"{found.before} {told}")
    return 1 if stays else 0


def _check(files: Sequence[Path], scale: str, results: Path, every: bool) -> int:
    """Compare whole reports with their runs.csv; unless `every` has to be there, those that are.

    The answers of the scale are compared too, unless single reports are asked for.
    """
    from gapbench.documents import require_real
    from gapbench.experiments.grid import scale_of
    from gapbench.report.answers import check_answers
    from gapbench.report.build import check
    from gapbench.report.collect import RUNS

    checked = failed = 0
    ablations = _ablations(files)
    for ablation in ablations:
        folder = results / scale_of(ablation, scale) / ablation.name
        if (folder / RUNS).exists():
            require_real(folder / RUNS, results)
            wrong = check(ablation.spec, folder)
            checked += 1
            failed += bool(wrong)
            told = f"not what {RUNS} gives: {', '.join(wrong)}" if wrong else "as from runs.csv"
            print(f"{folder}: {told}")
        elif every:
            raise UserError(f"{folder}: there is no report to check; `gapbench report` makes it")
        else:
            print(f"{folder}: there is no report")
    if not checked:
        raise UserError(f"{results / scale}: there is no report; `gapbench report` makes one")
    if not every:
        path, fits = check_answers(results, scale, [ablation.spec for ablation in ablations])
        failed += not fits
        told = f"not what {RUNS} gives" if path.is_file() else "missing: `gapbench report` makes it"
        print(f"{path}: {f'as from {RUNS}' if fits else told}")
    return 1 if failed else 0


def claims(results: ResultsOption = RESULTS) -> int:
    """Print what the papers claim, what tests it, and what was measured at which scale."""
    from gapbench.report.claims import claims_text

    files = sorted(Path("ablations").glob("*.yaml"))
    if not files:
        raise UserError("ablations/*.yaml: there is no ablation here")
    specs = {file: one.spec for file, one in zip(files, _ablations(files), strict=True)}
    print(claims_text(results, specs), end="")
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
    needed = {entry.trial.proxy: entry.trial for entry in entries}  # one for each task's options
    for trial in needed.values():
        trial.make_task().prepare(data)
        options = ", ".join(f"{key}={value}" for key, value in trial.task_options.items())
        print(f"{trial.task}{f' ({options})' if options else ''}: the data are there")
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

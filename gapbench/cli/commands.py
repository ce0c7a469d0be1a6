"""`gapbench report`, `claims`, `export`, `list`, `prepare`, `doctor` and `schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gapbench.base import places
from gapbench.cli import terminal
from gapbench.cli.options import (
    RESULTS,
    KeyArgument,
    OnlyOption,
    ResultsOption,
    ScaleOption,
    SeedsOption,
    SetOption,
)
from gapbench.cli.status import find, require_folder
from gapbench.errors import NothingFound, NotInstalled, UserError, choose
from gapbench.spec.selection import expanded

if TYPE_CHECKING:
    from gapbench.analysis.collect import Scan
    from gapbench.spec.ablation import Ablation
    from gapbench.spec.grid import Entry

KINDS = (
    "methods", "tasks", "distributions", "patterns", "updates", "scores", "transforms",
    "executors", "figures", "ablations",
)  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, publish, claims, explain, export, prepare, doctor, schema):
        app.command()(command)
    app.command("list")(list_names)
    folders = typer.Typer(help="Maintain run folders.", no_args_is_help=True)
    folders.command()(migrate)
    folders.callback()(_runs)
    app.add_typer(folders, name="runs")


def report(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Ablation files; by default all of ablations/."),
    ] = None,
    scale: ScaleOption = "mini",
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    results: ResultsOption = RESULTS,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; compare published files with their trials."),
    ] = False,
) -> int:
    """Make tables, figures and a page from runs and published trials; nothing is trained."""
    from gapbench.report.build import PAGE, REPORTS, completed
    from gapbench.report.build import report as build
    from gapbench.report.page import write_page

    given = files or shipped()
    if check:
        if set_ or only or seeds is not None:
            raise UserError("--check: compares whole reports: leave --set, --only and --seeds out")
        return _check(given, scale, results, every=bool(files))
    _ablations(given)
    if results != RESULTS:
        require_folder(results)
    console, found = terminal.console(), _scan(results)
    made = []
    picked = (scale, set_ or (), only or (), seeds)
    for ablation, chosen, entries in _expanded(given, picked, named=bool(files), found=found):
        one = build(ablation, chosen, entries, results, found)
        made.append(one)
        if files or completed(one.frame):
            console.print(one.renderable())
        else:
            console.print(f"{one.spec.name}: no trial has completed at scale {scale}")
        console.print(f"report: {one.folder}", soft_wrap=True)
    for shown in [[one] for one in made] if files else [made] if made else []:
        folder = shown[0].folder if files else results / REPORTS / scale
        title = f"{shown[0].spec.name if files else 'gapbench'}, scale {scale}"
        page = write_page(shown, title, found, folder / PAGE)
        console.print(f"page: {page}", soft_wrap=True)
    return 0 if made else 2


def publish(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Ablation files; by default all of ablations/."),
    ] = None,
    scale: ScaleOption = "mini",
    results: ResultsOption = RESULTS,
) -> int:
    """Write the evidence of completed trials for git: trials, table, figures, answers."""
    from gapbench.report.answers import write_answers
    from gapbench.report.publish import publish as write

    given = files or shipped()
    _ablations(given)
    require_folder(results)
    found = _scan(results)
    picked = (scale, (), (), None)
    for ablation, chosen, entries in _expanded(given, picked, named=bool(files), found=found):
        done = sum(entry.trial.key in found.runs for entry in entries)
        if not files and done < len(entries):
            told = f"{done} of {len(entries)} trials have completed: name the file to publish them"
            print(f"left out: {ablation.document.name}: {told}", file=sys.stderr)
            continue
        for path in write(ablation, chosen, entries, results, found):
            print(path)
    here = {file.resolve(): file for file in [*_here(), *given]}
    specs = [ablation.spec for ablation in _ablations(list(here.values()))]
    print(write_answers(results, scale, specs))
    return 0


def _here() -> list[Path]:
    return sorted(Path("ablations").glob("*.yaml"))


def shipped() -> list[Path]:
    """Return the ablation files of this folder.

    Raises:
        UserError: if there is no ablation file.
    """
    if not (files := _here()):
        raise UserError(
            "ablations/*.yaml: no ablation here: change to a folder with ablations/, or name an "
            "ablation: `gapbench list ablations` lists the names"
        )
    return files


def _scan(results: Path) -> Scan:
    """Read run folders and published trials, and print which folders cannot be used."""
    from gapbench.analysis.evidence import all_runs

    found = all_runs(results)
    if found.damaged:
        first = found.damaged[0]
        told = f"run folders that cannot be used: {len(found.damaged)}, such as {first.place}"
        print(f"{told}: {first.reason}; the page lists all", file=sys.stderr)
    return found


def _expanded(
    files: Sequence[Path],
    picked: tuple[str, Sequence[str], Sequence[str], str | None],
    named: bool,
    found: Scan,
) -> Iterator[tuple[Ablation, str, list[Entry]]]:
    """Yield ablations with their trials; print or, if `named`, refuse ablations without trials.

    Unless seeds are picked, the trials include completed trials of other seeds.
    """
    from gapbench.analysis.seeds import with_others

    _, settings, only, seeds = picked
    for file in files:
        try:
            ablation, scale, entries = expanded(file, *picked)
            if seeds is None:
                more = {"settings": settings, "only": only}
                entries = with_others(ablation, scale, entries, found, **more)
            yield ablation, scale, entries
        except (NotInstalled, NothingFound) as error:
            if named:
                raise
            print(f"left out: {error}", file=sys.stderr)


def _ablations(files: Sequence[Path]) -> list[Ablation]:
    """Read ablations.

    Raises:
        UserError: if a file is invalid, or if two ablations have the same name and would share a
            folder of results.
    """
    from gapbench.spec.ablation import read

    known: dict[str, Path] = {}
    ablations = [read(file) for file in files]
    for file, ablation in zip(files, ablations, strict=True):
        first = known.setdefault(ablation.name, file)
        if first != file:
            words = f"name: {ablation.name!r} is also the name in {first}: choose another name"
            raise UserError(f"{file}: {words}")
    return ablations


def _runs() -> None:
    """Keep `migrate` a command of its own, which typer would merge into a group of one."""


def migrate(results: ResultsOption = RESULTS) -> int:
    """Give trials of earlier versions the keys of this version; results do not change."""
    from gapbench.runs.migrate import migrate as renew

    require_folder(results)
    stays = 0
    for found in renew(results):
        stays += found.key is None
        told = f"is now {found.key}" if found.key else f"stays: {found.reason}"
        print(f"{found.before} {told}")
    return 1 if stays else 0


def _check(files: Sequence[Path], scale: str, results: Path, every: bool) -> int:
    """Compare the published files of ablations with their trials; with `every`, all must exist.

    The answers of the scale are compared too, unless single ablations are named.
    """
    from gapbench.analysis.evidence import TRIALS, path_of
    from gapbench.report.answers import check_answers
    from gapbench.report.publish import check

    checked = failed = 0
    specs = [ablation.spec for ablation in _ablations(files)]
    for spec in specs:
        folder = path_of(results, scale, spec.name).parent
        wrong = check(results, scale, spec)
        if wrong is None and every:
            raise UserError(f"{folder}: nothing is published: `gapbench publish` publishes trials")
        if wrong is None:
            print(f"{folder}: nothing is published")
            continue
        checked += 1
        failed += bool(wrong)
        told = f"differs from {TRIALS}: {', '.join(wrong)}" if wrong else f"matches {TRIALS}"
        print(f"{folder}: {told}")
    if not checked:
        raise UserError(
            f"{results / scale}: nothing is published: `gapbench publish` publishes trials"
        )
    if not every:
        path, fits = check_answers(results, scale, specs)
        failed += not fits
        told = (
            f"differs from {TRIALS}" if path.is_file() else "missing: `gapbench publish` writes it"
        )
        print(f"{path}: {f'matches {TRIALS}' if fits else told}")
    return 1 if failed else 0


def claims(results: ResultsOption = RESULTS) -> int:
    """Print the papers' claims, the tests of each claim, and the measurements at each scale."""
    from gapbench.report.claims import claims_text

    files = shipped()
    specs = {file: one.spec for file, one in zip(files, _ablations(files), strict=True)}
    print(claims_text(results, specs), end="")
    return 0


def explain(
    method: Annotated[str, typer.Argument(help="A method, such as c_gap.")],
    file: Annotated[
        Path,
        typer.Argument(help="An ablation with the method; the method's first trial is drawn."),
    ] = Path("main"),
    scale: ScaleOption = "mini",
    set_: SetOption = None,
) -> int:
    """Draw when a method makes each layer dense, and print the cost; nothing is trained."""
    from gapbench.methods.method import methods
    from gapbench.report.plans import KEY, plan_lines
    from gapbench.spec.ablation import read
    from gapbench.spec.dry_run import dry_run

    read(file)  # whose plug-ins may have the method
    if method not in methods:
        raise UserError(choose("method", method, methods))
    entry = expanded(file, scale, set_ or (), [method], None)[2][0]
    (forecast,) = dry_run([entry])
    console = terminal.console()
    cost = forecast.train_flops_ratio
    told = "known after the run" if cost is None else f"{cost:.2f} x dense training for 1x"
    console.print(f"{entry.label}: {forecast.epochs} machine-epochs; training FLOPs: {told}")
    for line in plan_lines(entry.trial.plan, entry.trial.layers, console.width):
        console.print(line, soft_wrap=True)
    console.print(KEY)
    return 0


def export(
    key: KeyArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="sparse (safetensors), dense (for torchvision, fairseq) or csr (linear layers).",
        ),
    ] = "sparse",
    checkpoint: Annotated[
        bool,
        typer.Option("--checkpoint", help="Export the checkpoint of an unfinished trial."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; KEY.safetensors or KEY.pt by default."),
    ] = None,
    results: ResultsOption = RESULTS,
) -> int:
    """Write the model of a trial as one file."""
    from gapbench.execution.export import SUFFIXES
    from gapbench.execution.export import export as write

    folder = find(results, key)
    known = next((name for name in SUFFIXES if name == form), None)
    if known is None:
        raise UserError(f"--format: {choose('format', form, SUFFIXES)}")
    done = write(folder, known, out or Path(folder.path.name + SUFFIXES[known]), checkpoint)
    share = f"{done.size / done.dense:.1%} of the {done.dense:,} bytes of its dense tensors"
    print(f"{done.path}: {done.size:,} bytes, {share}".replace("%", " %"))
    return 0


def prepare(
    file: Annotated[Path, typer.Argument(help="The ablation whose data are needed.")],
    scale: ScaleOption = "mini",
    only: OnlyOption = None,
    data: Annotated[Path | None, typer.Option(help="Folder for the data.")] = None,
) -> int:
    """Download and check the data of an ablation, on a machine with a network connection."""
    entries = expanded(file, scale, [], only or [], None)[2]
    needed = {entry.trial.proxy: entry.trial for entry in entries}  # one for each task's options
    for trial in needed.values():
        trial.make_task().prepare(data)
        options = ", ".join(f"{key}={value}" for key, value in trial.task_options.items())
        print(f"{trial.task}{f' ({options})' if options else ''}: the data are ready")
    return 0


def list_names(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS) + ".")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List the registered names of a kind, or the ablations of this folder."""
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
        case "patterns":
            from gapbench.sparsity.pattern import patterns

            yield from (patterns[kind].form for kind in patterns)
        case "updates":
            from gapbench.plan.update import updates

            yield from updates
        case "scores":
            from gapbench.sparsity.score import scores

            yield from scores
        case "transforms":
            from gapbench.sparsity.transform import transforms

            yield from transforms
        case "distributions":
            from gapbench.sparsity.distributions import distributions

            yield from distributions
        case "executors":
            from gapbench.launch.jobs import executors

            yield from executors
        case "figures":
            from gapbench.report.canvas import figures

            yield from figures
        case "ablations":
            yield from map(str, _here() or sorted((places.shipped() / "ablations").glob("*.yaml")))
        case _:
            raise UserError(choose("kind", kind, KINDS))


def doctor(results: ResultsOption = RESULTS) -> int:
    """Check the requirements of a run on this machine, and print what is missing."""
    from gapbench.cli.doctor import checks

    failed = 0
    for check in checks(results):
        failed += check.state == "missing"
        print(f"{check.state:<8} {check.name}: {check.detail}")
    return 1 if failed else 0


def schema() -> int:
    """Print the JSON Schema of ablation files, for editors."""
    from gapbench.spec.editors import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0

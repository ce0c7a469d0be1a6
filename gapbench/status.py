"""`gapbench status`, `show`, `logs` and `cancel`: what run folders tell, from any shell."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapbench.errors import UserError, choose
from gapbench.run import RESULTS, expanded

if TYPE_CHECKING:
    from gapbench.experiments.store import RunFolder
    from gapbench.progress import View

WATCH_SECONDS = 2.0

ResultsOption = Annotated[Path, typer.Option("--results", help="Where runs are kept.")]
ScaleOption = Annotated[str, typer.Option("--scale", help="smoke, mini, small or paper.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyArgument = Annotated[str, typer.Argument(help="A trial's key, or how it begins.")]
FileArgument = Annotated[
    Path | None, typer.Argument(help="An ablation; every run folder if none is given.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, show, logs, cancel):
        app.command()(command)


def status(
    file: FileArgument = None,
    scale: ScaleOption = "mini",
    results: ResultsOption = RESULTS,
    watch: Annotated[bool, typer.Option("--watch", help="Draw again until all ended.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Show the state of trials: running with progress and time left, failed with the error."""
    from rich.console import Console
    from rich.live import Live

    from gapbench.progress import table_of

    if as_json:
        print(json.dumps([asdict(view) for view in _views(file, scale, results)], indent=1))
        return 0
    console = Console(highlight=False)
    views = _views(file, scale, results)
    if not watch:
        console.print(table_of(views, _summary(views)))
        for view in views:
            if view.state == "failed":
                console.print(f"{view.key}: {view.status.get('error')}", markup=False)
        return 0
    with Live(table_of(views, _summary(views)), console=console) as live:
        while any(view.state in ("running", "queued") for view in views):
            time.sleep(WATCH_SECONDS)
            views = _views(file, scale, results)
            live.update(table_of(views, _summary(views)))
    return 0


def show(key: KeyArgument, results: ResultsOption = RESULTS, as_json: JsonOption = False) -> int:
    """Show one trial: its configuration, plan, state and result."""
    from rich.console import Console

    from gapbench.experiments.marks import read_json

    folder = find(results, key)
    parts: dict[str, Any] = {
        "state": folder.state(),
        "trial": read_json(folder.trial),
        "plan": read_json(folder.plan),
        "status": read_json(folder.status),
        "result": folder.read_result(),
    }
    if as_json:
        print(json.dumps(parts, indent=1))
        return 0
    console = Console(highlight=False)
    console.print(f"{folder.path}: {parts['state']}", markup=False, soft_wrap=True)
    for name in ("trial", "result"):
        for field, value in _flat(parts[name] or {}):
            console.print(f"{name:>7}  {field}: {value}", markup=False, soft_wrap=True)
    for segment in (parts["plan"] or {}).get("segments", []):
        branch = "" if segment["branch"] is None else f" branch {segment['branch']}"
        line = f"epochs {segment['start']}-{segment['stop']}: {segment['label']}{branch}"
        console.print(f"   plan  {line}, {len(segment['grow'])} layers dense", markup=False)
    return 0


def logs(
    key: KeyArgument,
    results: ResultsOption = RESULTS,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows.")] = False,
) -> int:
    """Print a trial's log, and the traceback of its last failure."""
    folder = find(results, key)
    for path in (folder.log, folder.error):
        if path.exists():
            print(path.read_text(encoding="utf-8", errors="replace"), end="")
    if not follow:
        return 0
    with open(folder.log, encoding="utf-8", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while folder.state() == "running":
            print(file.read(), end="", flush=True)
            time.sleep(0.5)
    return 0


def cancel(
    what: Annotated[
        list[str] | None, typer.Argument(help="Keys or ablation files; everything if none.")
    ] = None,
    scale: ScaleOption = "mini",
    results: ResultsOption = RESULTS,
) -> int:
    """Stop running trials; each writes its checkpoint first and goes on when run again."""
    folders = list(_chosen(what, scale, results))
    told = [folder for folder in folders if folder.state() == "running" and _tell(folder)]
    for folder in told:
        print(f"asked to stop: {folder.path.name}")
    if not told:
        print("nothing is running here")
    return 0


def find(results: Path, key: str) -> RunFolder:
    """Return the run folder whose key begins with `key`.

    Raises:
        UserError: if there is none, or more than one.
    """
    from gapbench.experiments.store import RunFolder

    keys = [folder.path.name for folder in _all(results)]
    found = [name for name in keys if name.startswith(key)]
    if len(found) != 1:
        if found:
            raise UserError(f"trial {key}: more than one key begins so: {', '.join(found[:5])}")
        raise UserError(f"{results}: {choose('trial', key, keys[:20])}")
    return RunFolder(results / "runs" / found[0])


def _views(file: Path | None, scale: str, results: Path) -> list[View]:
    from gapbench.experiments.store import RunFolder
    from gapbench.progress import View

    if file is None:
        return [View.of(folder, _label(folder)) for folder in _all(results)]
    return [
        View.of(RunFolder(results / "runs" / entry.trial.key), entry.label)
        for entry in expanded(file, scale, [], [], None)[2]
    ]


def _all(results: Path) -> list[RunFolder]:
    from gapbench.experiments.store import RunFolder

    if not results.is_dir():
        raise UserError(f"{results}: there is no such folder; name it with --results")
    return [RunFolder(path.parent) for path in sorted((results / "runs").glob("*/trial.json"))]


def _label(folder: RunFolder) -> str:
    """Name a trial without the ablation that it belongs to, and without building its model."""
    from gapbench.experiments.marks import read_json

    trial = read_json(folder.trial) or {}
    options = trial.get("options") or {}
    told = [str(trial.get(name, "?")) for name in ("task", "method", "distribution", "sparsity")]
    told += [f"{name}={options[name]}" for name in ("partitions", "strategy") if name in options]
    return f"{folder.path.name} {' '.join(told)} seed {trial.get('seed', '?')}"


def _summary(views: Sequence[View]) -> str:
    counts = Counter(view.state for view in views)
    return f"{len(views)} trials: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _chosen(what: Sequence[str] | None, scale: str, results: Path) -> Iterator[RunFolder]:
    from gapbench.experiments.store import RunFolder

    if not what:
        yield from _all(results)
    for word in what or []:
        if word.endswith((".yaml", ".yml")):
            for entry in expanded(Path(word), scale, [], [], None)[2]:
                yield RunFolder(results / "runs" / entry.trial.key)
        else:
            yield find(results, word)


def _tell(folder: RunFolder) -> bool:
    """Send the owner of a running trial SIGTERM; say so if it runs on another machine."""
    from gapbench.experiments.marks import read_json

    owner = read_json(folder.owner)
    if owner is None:
        return False
    if owner["host"] != socket.gethostname():
        print(f"{folder.path.name} runs on {owner['host']}: cancel it there")
        return False
    try:
        os.kill(owner["pid"], signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True

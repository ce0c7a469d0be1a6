"""`gapbench status`, `show`, `logs` and `cancel`: the state of run folders, from any shell."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapbench.cli import terminal
from gapbench.cli.options import (
    RESULTS,
    JsonOption,
    KeyArgument,
    OnlyOption,
    ResultsOption,
    ScaleOption,
    SeedsOption,
    SetOption,
)
from gapbench.errors import UserError
from gapbench.spec.selection import expanded

if TYPE_CHECKING:
    from gapbench.cli.progress import View
    from gapbench.runs.store import RunFolder

WATCH_SECONDS = 2.0
LOG_SECONDS = 0.5
SLURM_SECONDS = 10.0  # between two questions to SLURM
LAST_LINES = 3
LOG_BYTES = 4 * 2**20
DISK_BYTES = 64 * 2**10  # free on a disk that is called full

FileArgument = Annotated[
    Path | None, typer.Argument(help="An ablation; by default all run folders.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, show, logs, cancel):
        app.command()(command)


def status(
    file: FileArgument = None,
    scale: ScaleOption = "mini",
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    results: ResultsOption = RESULTS,
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until all trials end.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Show the state of trials: progress and time left, or the error."""
    from rich.live import Live

    from gapbench.cli.progress import View, table_of
    from gapbench.launch.queue import Queue

    pick = Pick(scale, set_ or (), only or (), seeds)
    labels, queue = _labels(file, pick, results), Queue(SLURM_SECONDS)
    views = View.all_of(labels, queue)
    if as_json:
        print(json.dumps([asdict(view) for view in views], indent=1))
        return 0
    console = terminal.console()
    if not watch:
        console.print(table_of(views, console.width, _summary(views)), soft_wrap=True)
        for folder, view in zip(labels, views, strict=True):
            for line in _trouble(folder, view):
                console.print(f"{view.key}: {line}", soft_wrap=True)
        return 0
    with Live(table_of(views, console.width, _summary(views)), console=console) as live:
        while any(view.state in ("running", "queued") for view in views):
            time.sleep(WATCH_SECONDS)
            views = View.all_of(labels, queue)
            live.update(table_of(views, console.width, _summary(views)))
    return 0


def show(key: KeyArgument, results: ResultsOption = RESULTS, as_json: JsonOption = False) -> int:
    """Show one trial: its configuration, plan, state and result."""
    from gapbench.base.documents import read_json

    folder = find(results, key)
    trial = read_json(folder.trial) or {}
    parts: dict[str, Any] = {
        "state": folder.state(),
        "plan": trial.pop("plan", None),
        "trial": trial,
        "status": read_json(folder.status),
        "result": folder.read_result(),
    }
    if as_json:
        print(json.dumps(parts, indent=1))
        return 0
    console = terminal.console()
    console.print(f"{folder.path}: {parts['state']}", soft_wrap=True)
    lines = {
        "trial": _settings(trial),
        "plan": _segments(parts["plan"]),
        "result": _settings(parts["result"] or {}),
    }
    for name, told in lines.items():
        for line in told:
            console.print(f"{name:>7}  {line}", soft_wrap=True)
    return 0


def logs(
    key: KeyArgument,
    results: ResultsOption = RESULTS,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Follow the log as it grows.")
    ] = False,
) -> int:
    """Print a trial's log, the output of its job, and the reason for its last failure."""
    from gapbench.launch.queue import Queue
    from gapbench.launch.submissions import look

    folder, queue = find(results, key), Queue(SLURM_SECONDS)
    shown = {path: 0 for path in (folder.log, _output(folder), folder.error) if path is not None}
    going = True
    while going:
        going = follow and look([folder], queue)[0].state in ("running", "queued")
        for path, offset in shown.items():
            shown[path] = _print_from(path, offset)
        if going:
            time.sleep(LOG_SECONDS)
    return 0


def cancel(
    what: Annotated[
        list[str] | None, typer.Argument(help="Keys or ablation files; by default all trials.")
    ] = None,
    scale: ScaleOption = "mini",
    seeds: SeedsOption = None,
    set_: SetOption = None,
    only: OnlyOption = None,
    results: ResultsOption = RESULTS,
) -> int:
    """Stop running and waiting trials on all machines; a stopped trial resumes when run again."""
    from gapbench.launch import queue
    from gapbench.launch.submissions import leave, look

    pick = Pick(scale, set_ or (), only or (), seeds)
    folders = [folder for folder in _chosen(what, pick, results) if folder.path.exists()]
    jobs: list[str] = []
    told = 0
    for folder, seen in zip(folders, look(folders, queue.Queue()), strict=True):
        if seen.state == "failed":
            jobs += leave(folder)  # those of its chain that wait
        if seen.state in ("completed", "failed"):
            continue
        folder.cancel()
        if seen.state in ("running", "queued"):
            print(f"asked to stop: {folder.path.name}")
            told += 1
            jobs += leave(folder) if seen.jobs else ()
            # on another host, and as a lane, the trial finds by itself that it was cancelled
            folder.terminate_owner()
    if not told:
        print("nothing is running")
    try:
        queue.cancel(jobs)
    except queue.SlurmError as error:
        raise UserError(f"SLURM does not cancel {', '.join(jobs)}: {error}") from None
    return 0


def find(results: Path, key: str) -> RunFolder:
    """Return the run folder whose key begins with `key`.

    Raises:
        UserError: if no run folder or more than one matches.
    """
    from gapbench.runs.store import RunFolder, one_key

    keys = [folder.path.name for folder in _all(results)]
    return RunFolder(results / "runs" / one_key(results, key, keys))


@dataclass(frozen=True)
class Pick:
    """The options that pick trials of an ablation file, as for `gapbench run`."""

    scale: str
    set_: Sequence[str]
    only: Sequence[str]
    seeds: str | None

    def of(self, file: Path, results: Path) -> Iterator[tuple[RunFolder, str]]:
        """Yield the run folder and the label of each trial of `file`."""
        from gapbench.runs.store import RunFolder

        asked = self.scale, self.set_, self.only, self.seeds
        for entry in expanded(file, *asked)[2]:
            yield RunFolder(results / "runs" / entry.trial.key), entry.label

    def require_file(self) -> None:
        """Refuse options that need a file if there is no file."""
        given = {"--set": self.set_, "--only": self.only, "--seeds": self.seeds is not None}
        for option in (name for name, value in given.items() if value):
            raise UserError(f"{option}: needs an ablation file: name the file")


def _labels(file: Path | None, pick: Pick, results: Path) -> dict[RunFolder, str]:
    if file is not None:
        return dict(pick.of(file, results))
    pick.require_file()
    return {folder: _label(folder) for folder in _all(results)}


def _trouble(folder: RunFolder, view: View) -> Iterator[str]:
    """Yield why a trial did not complete: its error, or the last output of its process."""
    if view.state == "failed":
        yield str(view.status.get("error"))
    output = _output(folder) if view.state == "lost" else None
    if output is not None:
        causes = [f"SLURM says {view.hint}"] if view.hint else []
        yield ": ".join(["lost", *causes, *_disk(folder)])
        yield from _text_from(output, 0)[0].splitlines()[-LAST_LINES:]


def last_words(folder: RunFolder) -> str:
    """Return one line about the end of a trial that has recorded no error."""
    from gapbench.launch.queue import Queue
    from gapbench.launch.submissions import look

    (seen,) = look([folder], Queue())
    output = _output(folder)
    printed = _text_from(output, 0)[0].split("\n") if output is not None else []
    told = [f"SLURM says {seen.hint}"] if seen.hint else []
    told += _disk(folder)
    told += [line.strip() for line in printed if line.strip()][-1:]
    return ": ".join(told) or "no error was recorded"


def _output(folder: RunFolder) -> Path | None:
    """Return the file with the output of the trial's latest process, if there is one."""
    from gapbench.base.documents import is_plain
    from gapbench.launch.submissions import log_of

    local = [] if folder.jobs.is_symlink() else list(folder.jobs.glob("*_log.out"))
    shared = [path for path in folder.lanes.glob("*_log.out") if is_plain(path)]
    local += [path for path in shared if folder.path.name in _text_from(path, 0)[0]]
    return log_of(folder) or max(local, key=lambda path: path.lstat().st_mtime, default=None)


def _print_from(path: Path, offset: int) -> int:
    """Print a file from byte `offset` on; return the offset of its end."""
    text, end = _text_from(path, offset)
    print(text, end="", flush=True)
    return end


def _text_from(path: Path, offset: int) -> tuple[str, int]:
    """Return a log's text from byte `offset` on (the last part if long), and the end's offset."""
    from gapbench.base.documents import open_plain

    try:
        with open_plain(path) as file:
            end = file.seek(0, os.SEEK_END)
            start = max(offset, end - LOG_BYTES)
            file.seek(start)
            text = file.read(end - start).decode(errors="replace")
    except FileNotFoundError:
        return "", offset
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    left_out = start - offset
    return (f"[{left_out:,} bytes are left out]\n{text}" if left_out else text), end


def _all(results: Path) -> list[RunFolder]:
    from gapbench.runs.store import RunFolder

    require_folder(results)
    return [RunFolder(path.parent) for path in sorted((results / "runs").glob("[!.]*/trial.json"))]


def require_folder(results: Path) -> None:
    """Refuse a results folder that does not exist."""
    if not results.is_dir():
        words = "no such folder: name another folder with --results; `gapbench run FILE` makes one"
        raise UserError(f"{results}: {words}")


def _label(folder: RunFolder) -> str:
    """Return a trial's label without reading its ablation and without building its model."""
    from gapbench.base.documents import read_json

    trial = read_json(folder.trial) or {}
    options = trial.get("options")
    options = options if isinstance(options, dict) else {}
    told = [str(trial.get(name, "?")) for name in ("task", "method", "distribution", "sparsity")]
    told += [str(trial[name]) for name in ("pattern", "as_small_as") if name in trial]
    told += [f"{name}={options[name]}" for name in ("partitions", "strategy") if name in options]
    return f"{' '.join(told)} {trial.get('budget', '?')} epochs seed {trial.get('seed', '?')}"


def _summary(views: Sequence[View]) -> str:
    counts = Counter(view.state for view in views)
    return f"{len(views)} trials: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def _settings(values: Mapping[str, Any]) -> Iterator[str]:
    for field, value in _flat(values):
        yield f"{field}: {value:.6g}" if isinstance(value, float) else f"{field}: {value}"


def _segments(plan: object) -> Iterator[str]:
    from gapbench.plan.document import plan_of

    try:
        segments = plan_of(plan).segments
    except ValueError:
        yield "is damaged"
        return
    for segment in segments:
        branch = "" if segment.branch is None else f" branch {segment.branch}"
        epochs = f"epochs {segment.start}-{segment.stop}: {segment.phase.label}{branch}"
        yield f"{epochs}, {len(segment.phase.grow)} layers dense"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _chosen(what: Sequence[str] | None, pick: Pick, results: Path) -> Iterator[RunFolder]:
    files = [word for word in what or () if word.endswith((".yaml", ".yml"))]
    if not files:
        pick.require_file()
    if not what:
        yield from _all(results)
    for word in what or ():
        if word in files:
            yield from (folder for folder, _ in pick.of(Path(word), results))
        else:
            yield find(results, word)


def _disk(folder: RunFolder) -> list[str]:
    """Return a message if the disk is full: a trial cannot write its error on a full disk."""
    full = shutil.disk_usage(folder.path).free < DISK_BYTES
    return ["its disk is full"] if full else []

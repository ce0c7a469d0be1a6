"""Training of a P-GaP round's branches in separate processes; results are exchanged as files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from gapbench.base.children import environment
from gapbench.base.documents import append_plain, read_json, read_text, require_real, write_json
from gapbench.engine.exchange import decode, encode, sizes
from gapbench.errors import UserError
from gapbench.execution.building import build_training
from gapbench.execution.recorder import FolderKeeper, read_history
from gapbench.execution.stopping import StopSign
from gapbench.runs.documents import Exchange
from gapbench.runs.store import RunFolder
from gapbench.spec.trials import Trial
from gapbench.training import loop, state
from gapbench.training.setup import Training

if TYPE_CHECKING:
    from subprocess import Popen

RESULT = "handed_back.pt"


def run_round(
    training: Training, folder: RunFolder, recorder: FolderKeeper, processes: int, apart: bool
) -> None:
    """Train all branches of the round that begins now, and merge their results.

    A branch that is complete, here or in another job, is not trained again.

    Args:
        training: the training at the start of the round.
        folder: the trial's run folder.
        recorder: the recorder of `training`.
        processes: number of branches that are trained in parallel, each in its own process; with 1
            the branches are trained one after another in this process, on all its ranks.
        apart: whether other jobs have trained branches in parallel; their time is then counted.

    Raises:
        Interrupted: if the recorder said to stop; branches have written their checkpoints.
        UserError: if a branch failed.
    """
    segment = training.sparsifier.segment
    recorder.checkpoint(training)  # the state that branches start from
    if recorder.writes:
        _remove_earlier_rounds(folder, segment.part)
    places = [branch_folder(folder, segment.part, branch) for branch in range(segment.branches)]
    for place in places:
        require_real(place.path, folder.path)
        place.path.mkdir(parents=True, exist_ok=True)
    missing = [b for b, place in enumerate(places) if not (place.path / RESULT).exists()]
    missing = training.ranks.agree(missing)
    if processes > 1:
        _train_side_by_side(training, folder, recorder, deque(missing), processes)
    else:
        for branch in missing:
            with places[branch].owned() if recorder.writes else nullcontext():
                run_branch(folder, places[branch], recorder.checkpoint_seconds,
                           lambda: recorder.ask(training) == "stop")  # fmt: skip
        training.ranks.agree(None)  # rank 0 has written the last result
    shapes = {layer.name: layer.shape for layer in training.sparsifier.layers}
    results, sent, elsewhere = [], [], [0.0]
    for branch, place in enumerate(places):
        handed = state.load(place.path / RESULT, training.device)
        file = {"part": segment.part, "branch": branch}
        file["file"] = (place.path / RESULT).stat().st_size
        with state.restoring(place.path / RESULT):
            sent.append({**file, **sizes(handed["result"], shapes)})
            if apart and branch not in missing:
                elsewhere.append(handed["seconds"])
            results.append(decode(handed["result"], shapes))
        for line in read_history(place.history):
            recorder.line(line)
    recorder.seconds_before += max(elsewhere)
    if recorder.writes:
        _record_exchange(folder, segment.part, sent)
    training.sparsifier.finish_round(results)
    training.epoch = training.sparsifier.segment.start


def _record_exchange(folder: RunFolder, part: int, sent: list[dict[str, int]]) -> None:
    """Store the sizes in bytes of the branches' results of a round; see `exchange.sizes`."""
    try:
        known = Exchange.model_validate(read_json(folder.exchange)).branches
    except ValidationError:  # there is none yet, or it is damaged
        known = []
    kept = [entry.model_dump() for entry in known if entry.part < part]
    write_json(folder.exchange, {"branches": [*kept, *sent]})


def _train_side_by_side(
    training: Training,
    folder: RunFolder,
    recorder: FolderKeeper,
    waiting: deque[int],
    processes: int,
) -> None:
    part = training.sparsifier.segment.part
    running: dict[int, Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            branch = waiting.popleft()
            running[branch] = _start(folder, part, branch, recorder.checkpoint_seconds)
        if recorder.ask(training) == "stop":
            _stop(list(running.values()))
            raise loop.Interrupted
        for branch, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[branch]
            if code != 0:
                _stop(list(running.values()))
                raise UserError(_failure(folder, part, branch, code))
        time.sleep(0.02)


def _start(folder: RunFolder, part: int, branch: int, seconds: float) -> Popen[bytes]:
    place = branch_folder(folder, part, branch)
    words = [str(folder.path), str(part), str(branch), str(seconds)]
    with append_plain(place.log) as log:
        command = [sys.executable, "-m", "gapbench.execution.branches", *words]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment())


def _stop(processes: list[Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _failure(folder: RunFolder, part: int, branch: int, code: int) -> str:
    log = branch_folder(folder, part, branch).log
    lines = read_text(log).strip().splitlines()
    return f"branch {branch} of part {part} ended with code {code}: {lines[-1] if lines else log}"


def branch_folder(folder: RunFolder, part: int, branch: int) -> RunFolder:
    """Return the folder in which a branch keeps its checkpoint, history and result."""
    return RunFolder(folder.rounds / str(part) / str(branch))


def run_branch(
    folder: RunFolder, place: RunFolder, checkpoint_seconds: float, stop: Callable[[], bool]
) -> None:
    """Train one branch from the checkpoint at the start of its round, and write its result.

    Args:
        folder: the trial's run folder.
        place: the branch's folder, from `branch_folder`.
        checkpoint_seconds: seconds between checkpoints, the most that a killed process loses.
        stop: function that says after every step whether to stop.

    Raises:
        Interrupted: if `stop` said so; the branch's checkpoint is written.
        TakenOver: if another process has taken over the branch's folder from this process.
        UserError: if the trial's checkpoint is not the start of the branch's round.
    """
    part, branch = int(place.path.parent.name), int(place.path.name)
    training = build_training(Trial.read(folder.trial))
    start = state.load(folder.checkpoint, training.device)
    training.load_state_dict(start["training"])
    segment = training.sparsifier.segment
    if (segment.part, segment.branch, training.epoch) != (part, 0, segment.start) or training.batch:
        words = f"this is not the start of part {part}: start over with --force"
        raise UserError(f"{folder.checkpoint}: {words}")
    training.sparsifier.jump_to_branch(branch)
    training.epoch = training.sparsifier.segment.start
    if branch == 0:
        training.sparsifier.changes()  # the trial itself has recorded that partition 0 grows
    first = training.ranks.rank == 0
    recorder = FolderKeeper(place, stop, _no_scalar, checkpoint_seconds, writes=first)
    recorder.resume(training)
    loop.train(training, recorder, until=training.sparsifier.segment.stop)
    metrics = loop.evaluate(training, "val")
    handed: dict[str, Any] = encode(training.sparsifier.finish_branch())
    loop.record_changes(training, recorder, metrics, in_branch=True)
    recorder.close()
    if first:
        place.require_owner()
        state.save(place.path / RESULT, {"result": handed, "seconds": recorder.seconds})


def _remove_earlier_rounds(folder: RunFolder, part: int) -> None:
    """Delete the results of earlier rounds, which the new checkpoint has merged."""
    require_real(folder.rounds, folder.path)
    for old in {place.path.parent for earlier, _, place in folder.branches() if earlier < part}:
        shutil.rmtree(old, ignore_errors=True)


def _no_scalar(name: str, value: float, step: int) -> None:
    """Do nothing: the trial's own process passes the lines of branches on to Sacred."""


def main(arguments: list[str]) -> int:
    """Run `run_branch RUN_DIR PART BRANCH SECONDS`; return 3 if it was interrupted."""
    stop, parent = StopSign(), os.getppid()
    stop.raised_by_signals()
    try:
        run_dir, part, branch, seconds = arguments
        folder = RunFolder(Path(run_dir))
        place = branch_folder(folder, int(part), int(branch))
        # otherwise a branch of a killed trial would run beside the branch of the next attempt
        run_branch(folder, place, float(seconds), lambda: stop() or os.getppid() != parent)
    except loop.Interrupted:
        return 3
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))

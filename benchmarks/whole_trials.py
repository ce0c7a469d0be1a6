"""What a trial costs beside the same training as a bare loop, and what two cost side by side.

    python -m benchmarks.whole_trials [--quick] [--json FILE]

The trial is C-GaP at scale mini with a quarter of its epochs, run by what runs every trial: engine,
Sacred, history, heartbeat, and a checkpoint after every epoch. The bare loop has the same model,
data, order, optimiser, schedule and evaluations, prunes by the same rule and multiplies weights by
masks after each step; it ends with the same bits, which is checked. The trial and two copies of the
bare loop take turns within one process, a few steps each, so that whatever else the machine does
meets all three. The trial is compared with the mean of both copies, and as a control one copy with
the other. What comes before the first epoch and after the last is timed apart, and a trial of scale
mini's whole length is put together from the parts. Importing modules is not counted.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.rows import Row, main, paired
from gapbench.base.streams import stream_seed
from gapbench.execution.building import build_training
from gapbench.execution.recorder import FolderKeeper
from gapbench.execution.sacred_run import run_attempt
from gapbench.runs.store import RunFolder
from gapbench.sparsity.masks import top_mask
from gapbench.spec.grid import Entry
from gapbench.spec.selection import expanded
from gapbench.spec.trials import Trial
from gapbench.training.schedules import learning_rate
from gapbench.training.setup import Training, build_optimizer, fix_numerics

MOST, LEAST_THROUGHPUT = 1.03, 1.8
MINI_EPOCHS = 32
TURN = 10  # steps
ABLATION = """\
name: whole
question: What does a trial cost beside its training?
scales:
  mini: {{task: {task}, seeds: 2, epochs: {epochs}, sparsity: 0.95}}
trials:
  - {{method: c_gap, step_epochs: {length}, steps: 2, step_lr: constant}}
"""


@dataclass
class Seconds:
    """Time that one way of training took: before its epochs, for each of them, and after."""

    start: float = 0.0
    epochs: list[float] = field(default_factory=list)
    end: float = 0.0


def rows(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        entries = trials_of(place, quick)
        beside = _beside_bare(*compare(place / "beside", entries[0].trial))
        return [*beside, together(place, trials_of(place, quick, part=2))]


def trials_of(place: Path, quick: bool, part: int = 1) -> list[Entry]:
    """Return two trials of C-GaP that differ in their seed; half of the epochs are grow steps.

    They have all epochs of this benchmark, or one part of so many.
    """
    task, epochs, length = ("digits", 4, 1) if quick else ("fashion_mnist", 8 // part, 2 // part)
    file = place / "whole.yaml"
    text = ABLATION.format(task=task, epochs=epochs, length=length)
    file.write_text(text, encoding="utf-8")
    return expanded(file, "mini", (), (), None)[2]


def _beside_bare(ours: Seconds, bare: Seconds, again: Seconds) -> list[Row]:
    both = [(one + other) / 2 for one, other in zip(bare.epochs, again.epochs, strict=True)]
    epoch, one = paired(ours.epochs, both), statistics.median(both)
    around = ours.start + ours.end
    around_bare = (bare.start + bare.end + again.start + again.end) / 2
    whole, whole_bare = around + MINI_EPOCHS * one * epoch, around_bare + MINI_EPOCHS * one
    reference = "bare loop"
    return [
        Row("epoch of C-GaP, checkpoint included", one * epoch, "s", reference, one, epoch),
        Row(
            "epoch of the bare loop, A/A control",
            statistics.median(again.epochs),
            "s",
            "its other copy",
            statistics.median(bare.epochs),
            paired(again.epochs, bare.epochs),
        ),
        Row("start and end of the trial", around, "s", reference, around_bare),
        Row(
            f"whole trial of {MINI_EPOCHS} epochs",
            whole,
            "s",
            reference,
            whole_bare,
            whole / whole_bare,
            MOST,
            note=f"from {len(bare.epochs)} epochs, start and end",
        ),
    ]


# -- the trial, and the bare loop in between -------------------------------------------------------


def compare(results: Path, trial: Trial) -> tuple[Seconds, Seconds, Seconds]:
    """Train the trial and two bare loops, a few steps of each in turn; return what each took.

    Raises:
        AssertionError: if they do not end with the same weights.
    """
    params = build_training(trial).sparsifier.weights.params
    masks = {name: param != 0 for name, param in params.items()}  # also of layers grown at once
    bare = [Stepped(bare_loop(trial, masks)) for _ in range(2)]
    ours, clock, turns = Seconds(), time.perf_counter(), itertools.count()
    taken = (ours, *(loop.seconds for loop in bare))

    def lap() -> float:
        nonlocal clock
        seconds, clock = time.perf_counter() - clock, time.perf_counter()
        return seconds

    def resumed(self: FolderKeeper, training: Training) -> None:
        nonlocal clock
        resume(self, training)
        ours.start = lap()
        for loop in bare:
            loop.seconds.start = loop.advance()
        for seconds in taken:
            seconds.epochs.append(0.0)
        clock = time.perf_counter()

    def asked(self: FolderKeeper, training: Training) -> Any:
        nonlocal clock
        told = ask(self, training)
        if training.batch % TURN:
            return told
        ours.epochs[-1] += lap()
        order = 1 if next(turns) % 2 else -1
        for loop in bare[::order]:
            loop.seconds.epochs[-1] += loop.advance()
        if not training.batch:
            told = "save"  # after every epoch; the writing is part of the next
            for seconds in taken:
                seconds.epochs.append(0.0)
        clock = time.perf_counter()
        return told

    resume, ask = FolderKeeper.resume, FolderKeeper.ask
    with mock.patch.multiple(FolderKeeper, resume=resumed, ask=asked):
        folder = run(results, trial)
    ours.end = lap()
    for loop in bare:
        loop.seconds.end = loop.advance()
    for seconds in taken:
        seconds.epochs.pop()  # that of an epoch after the last
    trained = torch.load(folder.model, weights_only=True)["model"]
    for name, tensor in bare[0].last.items():
        if not torch.equal(tensor, trained[name]):
            raise AssertionError(f"the bare loop and the trial end with different {name}")
    return ours, bare[0].seconds, bare[1].seconds


def run(results: Path, trial: Trial) -> RunFolder:
    """Run one attempt of a trial in this process and return its folder."""
    folder = RunFolder(results / "runs" / trial.key)
    folder.prepare(trial.document())
    state = run_attempt(folder.path, "whole", stop=lambda: False)
    if state != "completed":
        raise RuntimeError(f"the trial has {state}: {folder.read_status().get('error')}")
    return folder


class Stepped:
    """A training that goes on by one stretch a call; `last` is its state dict once it has ended."""

    def __init__(self, stretches: Iterator[dict[str, Tensor]]) -> None:
        self._stretches = stretches
        self.seconds = Seconds()
        self.last: dict[str, Tensor] = {}

    def advance(self) -> float:
        """Train the next stretch and return its seconds."""
        began = time.perf_counter()
        self.last = next(self._stretches)
        return time.perf_counter() - began


def bare_loop(trial: Trial, masks: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Train like the trial; yield when ready to, after every turn and epoch, and at the end.

    Args:
        trial: C-GaP.
        masks: the first masks.
    """
    recipe, plan = trial.recipe, trial.plan
    fix_numerics(recipe)
    task = trial.make_task()
    task.load(torch.device("cpu"))
    torch.manual_seed(stream_seed(trial.seed, "init"))
    model = task.build_model()
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, recipe)
    weights = {name: param.data for name, param in model.named_parameters() if name in masks}
    masks = {name: mask.to(weights[name].dtype) for name, mask in masks.items()}
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    losses, step, per_epoch = 0.0, 0, task.steps_per_epoch(recipe.batch_size)
    for name in weights:
        weights[name] *= masks[name]
    yield model.state_dict()
    for segment in plan.segments:
        if step:
            optimizer.state.clear()
        for name in segment.phase.grow:
            masks[name] = torch.ones_like(masks[name])
        for epoch in range(segment.start, segment.stop):
            model.train()
            seed = stream_seed(trial.seed, "data", epoch)
            batches = task.batches(seed, batch_size=recipe.batch_size)
            for number, batch in enumerate(batches, start=1):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, plan, segment, step, per_epoch)
                loss = task.loss(model, batch, recipe)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                for name, weight in weights.items():
                    weight *= masks[name]
                optimizer.zero_grad()
                losses += loss.item()
                step += 1
                if number % TURN == 0 and number < per_epoch:
                    yield model.state_dict()
            task.evaluate(model, "val")
            if epoch + 1 == segment.stop and segment.phase.grow:
                for name in segment.phase.grow:
                    mask = top_mask(weights[name].abs(), kept[name])
                    masks[name] = mask.to(weights[name].dtype)
                    weights[name] *= masks[name]
                task.evaluate(model, "val")
            yield model.state_dict()
    task.evaluate(model, "val")
    task.evaluate(model, "test")
    with tempfile.TemporaryFile() as file:
        torch.save(model.state_dict(), file)
    yield model.state_dict()


# -- two at a time ---------------------------------------------------------------------------------


def together(place: Path, entries: list[Entry]) -> Row:
    """Return the throughput of two trials of one thread each, beside that of one alone."""
    what = "two trials side by side, one thread each"
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        return Row(what, None, "epochs/s", limit=LEAST_THROUGHPUT, at_least=True, note="one core")
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for number, trials in enumerate((1, 2, 2, 1) * 2):
        taken = _timed_epochs(place / f"{number}", entries[:trials])
        # of epochs of equal seconds, each process delivers 1/median a second
        speeds[trials].append(sum(1 / statistics.median(seconds) for seconds in taken))
    ratio, one = paired(speeds[2], speeds[1]), statistics.median(speeds[1])
    return Row(
        what, one * ratio, "epochs/s", "one alone", one, ratio, LEAST_THROUGHPUT, at_least=True,
        note=f"{cores} cores",
    )  # fmt: skip


def _timed_epochs(results: Path, entries: list[Entry]) -> list[list[float]]:
    """Run trials at the same time; return the seconds of the epochs of each."""
    # a fork has torch imported already, but one of a process that has used a GPU could not use it
    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else "fork")
    told = context.Queue()
    children = [
        context.Process(target=_timed_run, args=(results, entry.trial, told)) for entry in entries
    ]
    for child in children:
        child.start()
    found = [told.get(timeout=600) for _ in children]
    for child in children:
        child.join()
    return found


def _timed_run(results: Path, trial: Trial, told: Any) -> None:
    stamps: list[float] = []
    ask = FolderKeeper.ask

    def asked(self: FolderKeeper, training: Training) -> Any:
        if not training.batch:
            stamps.append(time.perf_counter())
        return ask(self, training)

    with mock.patch.object(FolderKeeper, "ask", asked):
        run(results, trial)
    told.put([after - before for before, after in itertools.pairwise(stamps)])


if __name__ == "__main__":
    main(__doc__, rows)

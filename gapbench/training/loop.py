"""The one training loop. Read it top to bottom."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from gapbench.base.streams import stream_seed
from gapbench.engine.changes import Change
from gapbench.errors import UserError
from gapbench.training.schedules import learning_rate
from gapbench.training.setup import Training, set_rate
from gapbench.training.step import generators_of
from gapbench.training.turn import TURN

Metrics = dict[str, float]
Line = dict[str, Any]
Ask = Literal["go", "save", "stop"]


class Interrupted(Exception):
    """The run was asked to stop; the checkpoint is written."""


class Recorder(Protocol):
    """The loop's interface to its surroundings: history, checkpoints, and requests to stop."""

    def line(self, line: Line) -> None:
        """Keep one line of the history."""

    def ask(self, training: Training) -> Ask:
        """Say after a step whether to go on, to write a checkpoint, or to write one and stop."""

    def checkpoint(self, training: Training) -> None:
        """Write a checkpoint of the state."""

    def progress(self, training: Training, metrics: Metrics) -> None:
        """Show the run's progress to people."""


@dataclass(frozen=True)
class Final:
    """Metrics of the finished model; only here are the splits test and heldout evaluated."""

    val: Metrics
    test: Metrics
    heldout: Metrics


def train(
    training: Training,
    recorder: Recorder,
    *,
    until: int | None = None,
    parallel_round: Callable[[Training], None] | None = None,
) -> None:
    """Train to the end of the plan, or to the end of machine-epoch `until`.

    A stop at `until` leaves the current phase open.

    Args:
        training: a new or a resumed run.
        recorder: receiver of history, checkpoints and progress.
        until: machine-epoch to stop after, or None.
        parallel_round: function that trains all branches of a P-GaP round elsewhere; None trains
            the branches in this process.

    Raises:
        Interrupted: after the checkpoint was written, if the recorder said to stop.
    """
    sparsifier = training.sparsifier
    end = sparsifier.plan.epochs if until is None else until
    record_changes(training, recorder)
    while training.epoch < end:
        at_round = sparsifier.segment.branch == 0 and _at_start(training)
        if parallel_round is not None and at_round:
            parallel_round(training)
            record_changes(training, recorder, after=evaluate(training, "val"))
        else:
            metrics = train_epoch(training, recorder)
            if training.epoch < end:
                change_phase(training, recorder, metrics)
        _safe_point(training, recorder)


def train_epoch(training: Training, recorder: Recorder) -> Metrics:
    """Train the rest of the current epoch, record the epoch, and return its validation metrics.

    Raises:
        UserError: if the loss is not finite, from which no later epoch could recover.
    """
    training.replica.train()
    for batch in _in_turn(_batches(training)):
        if _completes_gradual(training):
            _measured_step(training, recorder, batch)
        else:
            train_step(training, batch)
        training.batch += 1
        alone = training.ranks.world == 1 or training.batch % 10 == 0  # agreeing is a round trip
        if alone and training.batch < training.per_epoch:
            _safe_point(training, recorder)
    metrics = evaluate(training, "val")
    record_changes(training, recorder)
    line = _epoch_line(training, metrics)
    recorder.line(line)
    if not math.isfinite(line["train/loss"]):
        raise UserError(
            f"training diverged in epoch {line['epoch']}: its mean loss is {line['train/loss']}; "
            "a smaller recipe.lr or a longer warm-up may help"
        )
    recorder.progress(training, metrics)
    training.epoch += 1
    training.batch = 0
    training.loss_sum = torch.zeros_like(training.loss_sum)
    return metrics


def _batches(training: Training) -> Iterator[Any]:
    """Yield this rank's share of the batches that are left of the epoch."""
    recipe, ranks = training.settings.recipe, training.ranks
    pieces = training.task.passes(training.epoch, training.batch, recipe.batch_size)
    for number, start, count in pieces:
        batches = training.task.batches(
            stream_seed(training.settings.seed, "data", number),
            batch_size=recipe.batch_size,
            start=start,
            rank=ranks.rank,
            world=ranks.world,
        )
        yield from itertools.islice(batches, count)


def _in_turn(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches; make each batch in this thread's turn, since a task may draw numbers."""
    end = object()
    while True:
        with TURN:
            batch = next(batches, end)
        if batch is end:
            return
        yield batch


@TURN  # nobody else may seed or draw until all of the step is launched
def train_step(training: Training, batch: Any) -> None:
    """Do one forward and backward pass and one step of the sparsifier."""
    settings, recipe, sparsifier = (
        training.settings,
        training.settings.recipe,
        training.sparsifier,
    )
    step = sparsifier.steps
    # noise of step t is a function of t, so that resuming needs no generator state
    _seed_noise(training.device, stream_seed(settings.seed, "noise", step, training.ranks.rank))
    rate = learning_rate(recipe, sparsifier.plan, sparsifier.segment, step, training.per_epoch)
    training.rate = rate
    set_rate(training.optimizer, rate)
    whole = training.step.whole(batch) if sparsifier.moves_alone else None
    if whole is not None:
        sparsifier.taken()
        training.loss_sum += whole
        return
    loss = training.step(batch)
    if recipe.clip_norm:
        sparsifier.weights.clip_gradients(training.model.parameters(), recipe.clip_norm)
    sparsifier.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.loss_sum += loss


def _seed_noise(device: torch.device, seed: int) -> None:
    """Seed the generators of a step as `torch.manual_seed` does, but only for `device`.

    `torch.manual_seed` seeds every kind of device and keeps a traceback for each unused device. On
    the CPU this takes two percent of a small model's training time.
    """
    for generator in generators_of(device):
        generator.manual_seed(seed)


def _completes_gradual(training: Training) -> bool:
    """Say whether the next step ends a gradual pruning; only this prune is measured.

    A gradual pruning has hundreds of prunes, and each measurement takes two passes over the
    validation split.
    """
    sparsifier, phase = training.sparsifier, training.sparsifier.segment.phase
    if phase.update is None:
        return False
    step = sparsifier.steps - sparsifier.segment.start * training.per_epoch
    length = phase.epochs * training.per_epoch
    return phase.update.completes(step, length)


def _measured_step(training: Training, recorder: Recorder, batch: Any) -> None:
    """Take a step that prunes, and record the metrics before and after the step."""
    record_changes(training, recorder)  # earlier prunes: these metrics are not theirs
    before = evaluate(training, "val")
    training.replica.train()
    train_step(training, batch)
    record_changes(training, recorder, before, evaluate(training, "val"))
    training.replica.train()


def change_phase(training: Training, recorder: Recorder, before: Metrics) -> None:
    """Enter the next phase at the end of a phase, and measure the metrics after its prune."""
    if not training.sparsifier.phase_ended:
        return
    in_branch = training.sparsifier.segment.branch is not None
    training.sparsifier.next_phase()
    merged = in_branch and training.sparsifier.segment.branch in (None, 0)
    after = evaluate(training, "val") if merged or not in_branch else None
    record_changes(training, recorder, before, after, in_branch)


def evaluate(training: Training, split: Any) -> Metrics:
    """Return metrics of the current model, named split/name.

    On a GPU other threads continue meanwhile: this thread waits for the device, and evaluation
    draws no random numbers.
    """
    with TURN if training.device.type == "cpu" else nullcontext():
        metrics = training.task.evaluate(training.model, split)
    return {f"{split}/{name}": value for name, value in metrics.items()}


def finish(training: Training) -> Final:
    """Evaluate the finished model, for the only time on the splits test and heldout."""
    heldout = evaluate(training, "heldout") if training.task.heldout else {}
    return Final(evaluate(training, "val"), evaluate(training, "test"), heldout)


def record_changes(
    training: Training,
    recorder: Recorder,
    before: Metrics | None = None,
    after: Metrics | None = None,
    in_branch: bool = False,
) -> None:
    """Write the mask changes since the last call, with the metrics around prunes and merges."""
    for change in training.sparsifier.changes():
        pruned = change.event == "prune"
        measured = change.event == "merge" or (pruned and not in_branch)
        recorder.line(
            _change_line(
                training,
                change,
                before if pruned else None,
                after if measured else None,
            )
        )


def _safe_point(training: Training, recorder: Recorder) -> None:
    ask = training.ranks.agree(recorder.ask(training))
    if ask == "go":
        return
    record_changes(training, recorder)
    recorder.checkpoint(training)
    if ask == "stop":
        raise Interrupted


def _at_start(training: Training) -> bool:
    return training.batch == 0 and training.epoch == training.sparsifier.segment.start


def _epoch_line(training: Training, metrics: Metrics) -> Line:
    sparsifier = training.sparsifier
    active = sum(sparsifier.weights.active().values())
    cost = sparsifier.ledger.dense_steps(training.cost) / training.per_epoch
    cost *= training.settings.relative_cost
    return {
        "kind": "epoch",
        "epoch": training.epoch + 1,
        "step": sparsifier.steps,
        "phase": sparsifier.segment.phase.label,
        "branch": sparsifier.segment.branch,
        "lr": training.rate,
        "train/loss": training.ranks.mean(training.loss_sum).item() / training.per_epoch,
        **metrics,
        "density": active / sum(layer.numel for layer in sparsifier.layers),
        "coverage": sparsifier.coverage.fraction(),
        "train_flops_ratio": cost / training.settings.recipe.epochs,
    }


def _change_line(
    training: Training, change: Change, before: Metrics | None, after: Metrics | None
) -> Line:
    return {
        "kind": "change",
        "epoch": change.step / training.per_epoch,
        "step": change.step,
        "event": change.event,
        "layers": list(change.layers),
        "mask_error": change.mask_error,
        "iou": change.iou,
        "before": before,
        "after": after,
        "densities": change.densities,
    }

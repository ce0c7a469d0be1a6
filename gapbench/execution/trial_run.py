"""The run of a trial in its folder: load data, train from the last checkpoint, write the result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from gapbench.execution.branches import run_round
from gapbench.execution.building import build_training
from gapbench.execution.environment import environment
from gapbench.execution.recorder import FolderKeeper, LogScalar, read_history
from gapbench.runs.store import RunFolder
from gapbench.sparsity import masks
from gapbench.sparsity.cost import inference_ratio
from gapbench.sparsity.exploration import NEARLY_ALL
from gapbench.spec.trials import Trial
from gapbench.training import loop
from gapbench.training.distributed import Ranks
from gapbench.training.setup import Training


@dataclass(frozen=True)
class Execution:
    """Settings of the execution of a trial, without influence on the result.

    Attributes:
        branches: number of processes that train the branches of a P-GaP round in parallel.
        checkpoint_seconds: seconds between checkpoints, the most that a killed process loses.
        apart: whether other jobs train the branches of P-GaP rounds; this process then only
            finishes branches that the jobs have not finished.
        until: the machine-epoch at which another job takes over, or None.
        lanes: name of the lanes of the trial's process; "" without lanes.
    """

    branches: int = 1
    checkpoint_seconds: float = 30.0
    apart: bool = False
    until: int | None = None
    lanes: str = ""


class LegEnded(loop.Interrupted):
    """The trial has reached the epoch where another job takes over; the checkpoint is written."""


def run_trial(
    folder: RunFolder,
    trial: Trial,
    execution: Execution,
    stop: Callable[[], bool],
    log_scalar: LogScalar,
) -> dict[str, Any]:
    """Train `trial` to its end and return the content of result.json.

    Raises:
        Interrupted: if `stop` said so; the checkpoint is written.
        LegEnded: at `execution.until`.
        UserError: if data are missing, the checkpoint is damaged, or a layer misses its sparsity.
    """
    training = build_training(trial)
    first = training.ranks.rank == 0

    def leg_ended() -> bool:
        return execution.until is not None and training.epoch >= execution.until

    recorder = FolderKeeper(
        folder, lambda: stop() or leg_ended(), log_scalar, execution.checkpoint_seconds, first
    )
    recorder.resume(training)
    parallel = None
    processes = execution.branches if training.ranks.world == 1 else 1  # ranks train together
    if processes > 1 or execution.apart:

        def parallel(training: Training) -> None:
            run_round(training, folder, recorder, processes, execution.apart)

    try:
        if training.ranks.agree(leg_ended()):
            loop.record_changes(training, recorder)
            recorder.checkpoint(training)
            raise LegEnded
        loop.train(training, recorder, parallel_round=parallel)
    except loop.Interrupted as interrupted:
        if leg_ended():
            raise LegEnded from interrupted
        raise
    finally:
        recorder.close()
    result = outcome(trial, training, recorder)
    if first:
        folder.require_owner()
        folder.save_model(training.model.state_dict(), training.sparsifier.masks)
        folder.complete(result)
    return result


def outcome(trial: Trial, training: Training, recorder: FolderKeeper) -> dict[str, Any]:
    """Check the finished model and return its result.

    Raises:
        UserError: if a layer misses its target.
    """
    sparsifier = training.sparsifier
    active_zeros = sparsifier.verify()
    final = loop.finish(training)
    lines = read_history(recorder.folder.history) if recorder.history else []
    return {
        "schema": 1,
        "key": trial.key,
        "metrics": {**final.test, **final.val, **final.heldout, **last_loss(lines)},
        **_sparsity(trial, training, active_zeros),
        "cost": _cost(training),
        "exploration": {
            "coverage": sparsifier.coverage.fraction(),
            "coverage_layers": sparsifier.coverage.per_layer(),
            **explored(lines),
        },
        "epochs": sparsifier.plan.epochs,
        "wall_epochs": sparsifier.plan.wall_epochs,
        "seconds": recorder.seconds,
        "seed": trial.seed,
        "ranks": Ranks.current().world,
        "data_sha256": training.task.data_digest(),
        "signatures": training.task.signatures(),
        "digest": {
            "weights": _digest(training.model.state_dict()),
            "masks": masks.digest(sparsifier.masks),
        },
        "history_sha256": recorder.history and recorder.history.digest,
        "environment": environment(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def explored(lines: Sequence[loop.Line]) -> dict[str, float]:
    """Return the epochs until nearly all weights were active, and the mean IoU of mask changes.

    Args:
        lines: lines of the history; a line without an earlier mask, such as a first prune, has no
            IoU.
    """
    epochs = [line for line in lines if line["kind"] == "epoch"]
    reached = [line["epoch"] for line in epochs if line["coverage"] >= NEARLY_ALL]
    kept = [value for line in lines if line.get("iou") for value in line["iou"].values()]
    found = {"epochs": float(min(reached))} if reached else {}
    return {**found, "iou": sum(kept) / len(kept)} if kept else found


def last_loss(lines: Sequence[loop.Line]) -> loop.Metrics:
    """Return the mean training loss of the last epoch, if the history has it.

    The comparison with the loss on other images shows whether the training set was memorised.
    """
    losses = [line["train/loss"] for line in lines if line["kind"] == "epoch"]
    return {"train/loss": losses[-1]} if losses else {}


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a sha256 that is equal for equal bits under equal names."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _sparsity(trial: Trial, training: Training, active_zeros: int) -> dict[str, Any]:
    weights = training.sparsifier.weights.params
    zeros = {name: param.numel() - int(param.count_nonzero()) for name, param in weights.items()}
    numel = sum(param.numel() for param in weights.values())
    whole = sum(param.numel() for param in training.model.parameters())
    relative = 1.0 if trial.as_small_as is None else whole / trial.whole.parameters
    return {
        "sparsity": {
            "target": trial.sparsity,
            "prunable": sum(zeros.values()) / numel,
            "model": sum(zeros.values()) / whole,
            "active_zeros": active_zeros,
        },
        "density": {
            "prunable": 1 - sum(zeros.values()) / numel,
            "model": relative * (1 - sum(zeros.values()) / whole),
            "layers": {
                name: {
                    "density": 1 - zeros[name] / param.numel(),
                    "numel": param.numel(),
                }
                for name, param in weights.items()
            },
        },
        "parameters": {"prunable": numel, "model": whole},
    }


def _cost(training: Training) -> dict[str, float]:
    sparsifier, cost = training.sparsifier, training.cost
    dense_epochs = sparsifier.ledger.dense_steps(cost) / training.per_epoch
    examples = training.task.epoch_examples(training.settings.recipe.batch_size)
    relative = training.settings.relative_cost
    return {
        # a multiply-accumulate is two operations; forward and backward are three passes
        "train_flops": dense_epochs * examples * 3 * 2 * cost.total,
        "train_flops_ratio": relative * dense_epochs / training.settings.recipe.epochs,
        "inference_flops": 2 * cost.total * inference_ratio(cost, sparsifier.densities()),
        "inference_flops_ratio": relative * inference_ratio(cost, sparsifier.densities()),
        "peak_density": sparsifier.ledger.peak_density,
        "mean_density": sparsifier.ledger.mean_density,
    }

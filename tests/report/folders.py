"""Run folders as a real run leaves them, with values that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapbench.methods.method import options_model
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec
from gapbench.spec.trials import Trial, planned
from gapbench.tasks.task import Recipe
from gapbench.training.history import History

LAYERS = {"conv1.weight": 144, "layer1.0.conv1.weight": 2304, "fc.weight": 640}


def trial_of(method: str = "c_gap", seed: int = 0, **changes: Any) -> Trial:
    """Return a trial of a registered method at its default options."""
    settings: dict[str, Any] = {
        "task": "fashion_mnist",
        "task_version": 1,
        "task_options": {"size": 14, "epoch_steps": None}
        if changes.get("task", "fashion_mnist") == "fashion_mnist"
        else {},
        "recipe": Recipe(epochs=60, batch_size=128, lr=0.1),
        "method": method,
        "distribution": "dense" if method == "dense" else "uniform",
        "first_layer": "sparse",
        "sparsity": 0.0 if method == "dense" else 0.9,
        "seed": seed,
    }
    times = changes.pop("times", 1)
    epochs = times * changes.pop("epochs", 60)
    settings["budget"] = f"{times}x" if times > 1 else str(epochs)
    known = {*settings, "pattern", "as_small_as"}
    fields = {name: changes.pop(name) for name in list(changes) if name in known}
    options = options_model(method)(**changes).model_dump()
    return planned(epochs, **{**settings, **fields}, options=options)


def entry_of(trial: Trial, name: str | None = None) -> Entry:
    return Entry(trial, name or trial.name, trial.label)


def spec_of(**report: Any) -> AblationSpec:
    claims = report.pop("claims", [])
    return AblationSpec.model_validate(
        {"name": "partitions", "question": "Which?", "claims": claims, "report": report}
    )


def around(mean: float, off: float, n: int) -> list[float]:
    """Return n values, in turn `off` below and above `mean`."""
    return [mean + (off if index % 2 else -off) for index in range(n)]


def result_of(
    trial: Trial, value: float, metrics: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return a result whose test accuracy is `value` percent; `metrics` are added, or go before."""
    density = 1 - trial.sparsity
    layers = {name: {"density": density, "numel": numel} for name, numel in LAYERS.items()}
    return {
        "schema": 1,
        "key": trial.key,
        "metrics": {
            "test/accuracy": value,
            "test/loss": 0.5,
            "val/accuracy": value + 0.25,
            "val/loss": 0.4,
            **(metrics or {}),
        },
        "sparsity": {"target": trial.sparsity, "prunable": trial.sparsity, "model": 0.85,
                     "active_zeros": 0},
        "density": {"prunable": density, "model": 0.15, "layers": layers},
        "parameters": {"prunable": sum(LAYERS.values()), "model": 4000},
        "cost": {"train_flops": 3e12, "train_flops_ratio": 0.375, "inference_flops": 1e6,
                 "inference_flops_ratio": 0.125, "peak_density": 0.4, "mean_density": 0.325},
        "exploration": {"coverage": 0.995, "coverage_layers": dict.fromkeys(LAYERS, 0.995)},
        "epochs": trial.plan.epochs,
        "wall_epochs": trial.plan.epochs,
        "seconds": 130.5,
        "attempts": 1,
        "command": None,
        "environment": {"gapbench": "0.1.0", "python": "3.11", "torch": "2.13.0",
                        "git_commit": "12345678", "git_dirty": False, "host": "node1",
                        "system": "Linux-6.1.0-18-mysite-x86_64-with-glibc2.36",
                        "cpu": "a <cpu> & more", "gpu": None},
        "data_sha256": "0" * 64,
        "seed": trial.seed,
        "finished": "2026-11-21T10:00:00+00:00",
    }  # fmt: skip


def history_of(trial: Trial, value: float) -> list[dict[str, Any]]:
    """Return an initial mask, then four epochs with a prune after the second and the third."""
    metric = {"val/accuracy": value, "val/loss": 0.4}
    densities = dict.fromkeys(LAYERS, 1 - trial.sparsity)
    lines: list[dict[str, Any]] = [
        {"kind": "change", "epoch": 0.0, "step": 0, "event": "initial", "layers": list(LAYERS),
         "mask_error": None, "iou": None, "before": None, "after": None, "densities": densities},
        {"kind": "change", "epoch": 0.0, "step": 0, "event": "grow", "layers": ["fc.weight"],
         "mask_error": None, "iou": None, "before": None, "after": None, "densities": densities},
    ]  # fmt: skip
    phases = ("grow 1/2", "grow 2/2", "fine-tune", "fine-tune")
    for epoch, phase in enumerate(phases, 1):
        lines.append(
            {"kind": "epoch", "epoch": epoch, "step": 100 * epoch, "phase": phase, "branch": None,
             "lr": 0.1, "train/loss": 2.0 / epoch, "val/accuracy": value - 4 + epoch,
             "val/loss": 1.0 / epoch, "density": 0.4 if epoch < 3 else 1 - trial.sparsity,
             "coverage": min(1.0, 0.3 * epoch), "train_flops_ratio": 0.1 * epoch}
        )  # fmt: skip
        if epoch < 3:
            # the branches of P-GaP prune a partition each, and are merged then
            pruned = "conv1.weight" if (trial.method, epoch) == ("p_gap", 2) else "fc.weight"
            lines.append(
                {"kind": "change", "epoch": float(epoch), "step": 100 * epoch, "event": "prune",
                 "layers": [pruned], "mask_error": 0.02 * epoch, "iou": {pruned: 0.7},
                 "before": metric, "after": {"val/accuracy": value - 1.5, "val/loss": 0.6},
                 "densities": densities}
            )  # fmt: skip
        if (trial.method, epoch) == ("p_gap", 2):
            lines.append(
                {"kind": "change", "epoch": 2.0, "step": 200, "event": "merge",
                 "layers": list(LAYERS), "mask_error": None, "iou": None, "before": None,
                 "after": None, "densities": densities}
            )  # fmt: skip
    return lines


def write_trial(results: Path, trial: Trial) -> Path:
    """Write a run folder with a trial that has not started."""
    folder = results / "runs" / trial.key
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(trial.document()))
    return folder


def write_result(
    results: Path, trial: Trial, value: float, metrics: Mapping[str, float] | None = None
) -> Path:
    """Write the run folder of a completed trial of which only the result is left."""
    folder = write_trial(results, trial)
    (folder / "result.json").write_text(json.dumps(result_of(trial, value, metrics)))
    return folder


def write_run(results: Path, trial: Trial, value: float) -> Path:
    """Write the run folder of a completed trial."""
    folder = write_result(results, trial, value)
    history = History(folder / "history.jsonl")
    for line in history_of(trial, value):
        history.append(line)
    history.close()
    (folder / "status.json").write_text(json.dumps({"state": "completed", "attempt": 1}))
    (folder / "log.txt").write_text("2026-11-21 INFO began\n2026-11-21 INFO <done> & gone\n")
    return folder

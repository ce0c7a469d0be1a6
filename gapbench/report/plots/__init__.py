"""The figures, a module a subject, and the registry that knows them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gapbench.base.registry import Registry

# functions that draw evidence, as `gapbench.report.figures.figure` registers them
figures: Registry[Callable[..., Any]] = Registry("figure", "gapbench.report.plots")

# known without importing what draws them; a test compares this with the registry
NAMES = (
    "accuracy_vs_epochs",
    "accuracy_vs_flops",
    "accuracy_vs_partitions",
    "accuracy_vs_sparsity",
    "anytime",
    "branch_iou",
    "coverage",
    "layer_density",
    "loss_curves",
    "mask_iou",
    "means",
    "prune_shock",
)

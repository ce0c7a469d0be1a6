"""The figures: each is a registered function in a module of this package."""

from __future__ import annotations

from gapbench.errors import choose
from gapbench.spec.ablation import Ablation

# the names are known without importing the modules that draw
NAMES = (
    "accuracy_vs_epochs", "accuracy_vs_flops", "accuracy_vs_partitions", "accuracy_vs_sparsity",
    "anytime", "branch_iou", "coverage", "layer_density", "loss_curves", "mask_iou", "means",
    "prune_shock",
)  # fmt: skip


def require_figures(ablation: Ablation) -> None:
    """Check the names of figures in the report section, before any trial has run.

    Raises:
        UserError: naming file, line and the valid figures.
    """
    if others := [name for name in ablation.spec.report.figures if name not in NAMES]:
        from gapbench.report.canvas import figures  # noqa: PLC0415 - matplotlib takes a second

        for name in others:
            if name not in figures:
                told = choose("figure", name, figures)
                raise ablation.document.problem(("report", "figures"), told)

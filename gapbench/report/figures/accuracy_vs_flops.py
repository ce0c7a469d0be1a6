"""Means against training FLOPs."""

from __future__ import annotations

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
)
from gapbench.report.points import against


@figure("accuracy_vs_flops", reads=())
def accuracy_vs_flops(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds against training FLOPs, with the Pareto front."""
    label = "training FLOPs (× dense recipe)"
    return against(evidence, "train_flops_ratio", label, front=True)

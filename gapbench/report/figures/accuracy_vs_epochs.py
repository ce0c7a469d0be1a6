"""Means against machine-epochs."""

from __future__ import annotations

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
)
from gapbench.report.points import against


@figure("accuracy_vs_epochs", reads=())
def accuracy_vs_epochs(evidence: Evidence) -> Drawn | None:
    """Draw means with 95 % t-intervals over seeds against machine-epochs, one panel per column."""
    return against(evidence, "epochs", "machine-epochs", front=False)

"""The page of the proxy as a grid: whether it shows what is known at scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gapbench.analysis.looks import ALPHA
from gapbench.analysis.proxy import Check
from gapbench.analysis.records import NOTHING, text_of
from gapbench.report.grids import Grid, Text

NOTES = (
    "On validation data; differences of means over seeds with 95 % t-intervals by Welch, in the "
    "unit of the task's metric, for losses in nats. Holds: the interval lies above 0.",
)


def proxy_grid(checks: Sequence[Check]) -> Grid:
    """Return one line a test."""
    return Grid(
        title="Is the proxy in the regime of the published tables?",
        head=("task", "test", "sparsity", "n", "difference", "holds"),
        body=tuple(_line(check) for check in checks if any(check.n)),
        keys=3,
        notes=NOTES,
    )


def _line(check: Check) -> tuple[Text, ...]:
    words = NOTHING
    if check.difference is not None:
        width = check.difference.half_width(ALPHA)
        words = f"{check.difference.mean:+.2f}"
        words += "" if math.isinf(width) else f" ± {width:.2f}"
    return (
        Text(check.task),
        Text(check.asks),
        Text(text_of(check.sparsity)),
        Text(f"{check.n[0]}, {check.n[1]}"),
        Text(words),
        Text({None: NOTHING, True: "yes", False: "NO"}[check.passed]),
    )

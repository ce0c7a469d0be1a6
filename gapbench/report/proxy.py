"""The page of the proxy as a grid: whether it shows what is known at scale."""

from __future__ import annotations

from collections.abc import Sequence

from gapbench.analysis.proxy import Check
from gapbench.analysis.records import NOTHING, text_of
from gapbench.report.grids import Grid, Text
from gapbench.report.tables import difference_words

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
    found = check.difference
    return (
        Text(check.task),
        Text(check.asks),
        Text(text_of(check.sparsity)),
        Text(f"{check.n[0]}, {check.n[1]}"),
        Text(NOTHING if found is None else difference_words(found, 2)),
        Text({None: NOTHING, True: "yes", False: "NO"}[check.passed]),
    )

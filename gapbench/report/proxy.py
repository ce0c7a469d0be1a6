"""The tests of the proxy as a grid: whether the proxy shows the known effects at scale."""

from __future__ import annotations

from collections.abc import Sequence

from gapbench.analysis.proxy import Check
from gapbench.analysis.records import NOTHING, text_of
from gapbench.report.grids import Grid, Text
from gapbench.report.tables import difference_words

NOTES = (
    "All values are on validation data. A difference is the difference of means over seeds ± the "
    "half-width of its 95 % t-interval; its unit is the unit of the task's metric, or nats for "
    "losses. Holds: the interval lies above 0.",
)


def proxy_grid(checks: Sequence[Check]) -> Grid:
    """Return a grid with one line per test."""
    return Grid(
        title="Is the task a valid proxy of the published tables?",
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

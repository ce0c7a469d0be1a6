"""The mean of each row."""

from __future__ import annotations

from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    panels,
)
from gapbench.report.values import points, value_words


@figure("means", reads=())
def means(evidence: Evidence) -> Drawn | None:
    """Draw the mean of every row with its 95 % t-interval over seeds, and each seed as a dot."""
    results, look = evidence.results, evidence.look
    frame = points(results)
    if frame.empty:
        return None
    count = len(results.rows)
    made, axes, drawn = panels(results.columns, width=4.6, height=0.9 + 0.24 * count, across=2)
    for ax, column in zip(axes, drawn, strict=True):
        for line, row in enumerate(results.rows):
            cell = row.cells[results.columns.index(column)]
            if cell.summary is None:
                continue
            seeds = list(cell.values.values())
            ax.plot(seeds, [line] * len(seeds), ".", color=look[row.name].colour, alpha=0.4)
            half = cell.summary.half_width
            ax.errorbar([cell.summary.mean], [line], xerr=half, **look[row.name].mark())
        ax.set_yticks(range(count), [evidence.names[row.name] for row in results.rows])
        ax.set_ylim(count - 0.5, -0.5)
        ax.set(xlabel=value_words(results, frame), title=evidence.at(column))
    return made, frame

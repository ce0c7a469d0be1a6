"""The mean of each row."""

from __future__ import annotations

from gapbench.analysis.records import text_of
from gapbench.report.canvas import (
    Drawn,
    Evidence,
    figure,
    legend_names,
    looks,
    panels,
)
from gapbench.report.values import points, value_words


@figure("means", reads=())
def means(evidence: Evidence) -> Drawn | None:
    """Draw the mean of every row with its 95 % t-interval over seeds, and each seed as a dot."""
    results = evidence.results
    frame = points(results)
    if frame.empty:
        return None
    look, names = looks(results.rows, evidence.first), legend_names(results)
    count = len(results.rows)
    height = 0.9 + 0.24 * count
    made, axes, shown = panels(results.columns, width=4.6, height=height, across=2)
    for ax, column in zip(axes, shown, strict=True):
        at = results.columns.index(column)
        for line, row in enumerate(results.rows):
            cell = row.cells[at]
            if cell.summary is None:
                continue
            own = look[row.name]
            seeds = list(cell.values.values())
            ax.plot(seeds, [line] * len(seeds), ".", color=own.colour, alpha=0.4)
            ax.errorbar([cell.summary.mean], [line], xerr=cell.summary.half_width, **own.mark())
        ax.set_yticks(range(count), [names[row.name] for row in results.rows])
        ax.set_ylim(count - 0.5, -0.5)
        ax.set_xlabel(value_words(results, frame))
        ax.set_title(f"{results.column} {text_of(column)}")
    return made, frame

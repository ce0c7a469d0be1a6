"""Names of lines at their ends, where there is room for them; else in a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from gapbench.report.canvas import LEGEND_WIDTH, legend_below

MOST_NAMES = 6
MOST_LETTERS = 24  # of a name: longer ones would take the lines' room
GAP = 5  # points between a line and its name
EDGE = 0.8  # of the axes' width: lines that end behind it are named beside the axes


def name_lines(made: Figure, axes: Sequence[Axes], across: int = 3) -> None:
    """Name lines at their ends in the last panel, where there is room; else in a legend below.

    There is room if names touch neither each other nor a line. Call it when all else is drawn. At
    most `across` entries of a legend stand abreast.
    """
    made.set_figwidth(max(made.get_figwidth(), LEGEND_WIDTH))
    if texts := _names(axes):
        made.draw_without_rendering()  # where names lie depends on the layout
        if _apart(made, axes[-1], texts):
            return
        for text in texts:
            text.remove()
    legend_below(made, axes, across)


def _names(axes: Sequence[Axes]) -> list[Annotation]:
    """Write the names of all lines into the last panel; none if it lacks one, or they are long."""
    last = axes[-1]
    lines = {label: _line(handle) for handle, label in _entries(last)}
    if {label for ax in axes for _, label in _entries(ax)} != set(lines):
        return []
    places = [ax.get_subplotspec() for ax in axes]
    if not all(place is None or place.is_first_row() for place in places):
        return []  # the last of several rows speaks for none of the others
    if len(lines) > MOST_NAMES or max(map(len, lines), default=0) > MOST_LETTERS:
        return []
    points = [np.asarray(line.get_xydata(), dtype=float) for line in lines.values()]
    if not all(np.isfinite(own).all(axis=1).any() for own in points):
        return []  # a mark that is explained, and has no place
    last.autoscale_view()  # which waits for a drawing else
    return [_write(last, line, label) for label, line in lines.items()]


def _entries(ax: Axes) -> list[tuple[Any, str]]:
    return list(zip(*ax.get_legend_handles_labels(), strict=True))


def _line(handle: Any) -> Line2D:
    return handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle


def _write(ax: Axes, line: Line2D, label: str) -> Annotation:
    shown = line.get_transform() - ax.transAxes
    places = shown.transform(np.asarray(line.get_xydata(), dtype=float))
    x, y = max(places[np.isfinite(places).all(axis=1)], key=lambda place: place[0])
    return ax.annotate(label, (1.0 if x > EDGE else x, y), xycoords="axes fraction",
                       xytext=(GAP, 0), textcoords="offset points", va="center",
                       fontsize=matplotlib.rcParams["legend.fontsize"])  # fmt: skip


def _apart(made: Figure, ax: Axes, texts: Sequence[Annotation]) -> bool:
    """Say whether texts lie inside the figure, and touch neither one another nor a line."""
    boxes = [text.get_window_extent() for text in texts]
    inside = all(made.bbox.count_contains(box.corners()) == 4 for box in boxes)
    alone = all(not box.overlaps(other) for at, box in enumerate(boxes) for other in boxes[:at])
    paths = [
        (artist.get_transform().transform_path(path), joined)
        for artist, joined in _drawn(ax)
        for path in (artist.get_paths() if isinstance(artist, LineCollection)
                     else [artist.get_path()])
    ]  # fmt: skip
    return inside and alone and not any(
        box.count_contains(path.vertices) or (joined and path.intersects_bbox(box, filled=False))
        for box in boxes
        for path, joined in paths
    )  # fmt: skip


def _drawn(ax: Axes) -> list[tuple[Any, bool]]:
    """Return lines and bars with whether their points are joined."""
    bars = [one for one in ax.collections if isinstance(one, LineCollection)]
    lines = [(line, line.get_linestyle() != "None") for line in ax.lines]
    return [*lines, *((one, True) for one in bars)]

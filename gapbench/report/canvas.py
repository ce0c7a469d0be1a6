"""The data and the style of figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gapbench.analysis.cells import Cell, Results, Row
from gapbench.analysis.comparisons import Comparison
from gapbench.analysis.histories import KINDS, Histories
from gapbench.analysis.records import COMPLETED, text_of
from gapbench.base.registry import Registry
from gapbench.methods.method import methods

T = TypeVar("T")

# Methods have colours of Paul Tol's "muted" scheme, which all kinds of colour vision can
# distinguish. A method has one colour in all figures. Markers differ as well, so that no figure
# depends on colour alone.
OTHER = ("#777777", "*")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MOST_PANELS = 9  # more are too small to read, and take seconds
MOST_ROWS = 12  # of one panel: more lines cannot be told apart
LEGEND_WIDTH = 6.0  # inches, the least width of a figure that has a legend
LEGEND_LINE = 0.18  # inches


@dataclass(frozen=True)
class Evidence:
    """The data of the figures of one ablation on one task.

    Attributes:
        results: rows and columns with their statistics.
        histories: curves, changes and layers of its completed trials, with row, column and seed.
        first: names of the rows that claims are about, which are drawn before others.
        to_baseline: rows compared with the baseline of the report section.
        baseline: the fields of that.
    """

    results: Results
    histories: Histories
    first: frozenset[str] = frozenset()
    to_baseline: tuple[Comparison, ...] = ()
    baseline: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def run(self) -> list[Row]:
        """The rows with at least one completed trial."""
        return [row for row in self.results.rows if any(cell.n_run for cell in row.cells)]

    @cached_property
    def rows(self) -> list[Row]:
        """The rows in a panel of lines: at most `MOST_ROWS` of the rows that have run."""
        return self.most(self.run, lambda row: row.name in self.first)

    @staticmethod
    def most(items: Sequence[T], first: Callable[[T], bool]) -> list[T]:
        """Return at most `MOST_ROWS` items in their order, chosen from the `first` items first."""
        chosen = sorted(range(len(items)), key=lambda at: not first(items[at]))[:MOST_ROWS]
        return [items[at] for at in sorted(chosen)]

    @cached_property
    def look(self) -> dict[str, Look]:
        """The look of every row."""
        return looks(self.results.rows, self.first)

    @cached_property
    def names(self) -> dict[str, str]:
        """The legend name of every row, such as "C-GaP, 8 (4/6)" if 4 of 6 seeds have run."""
        columns = [text_of(column) for column in self.results.columns]
        return {
            row.name: shown(row.name) + partly(dict(zip(columns, row.cells, strict=True)))
            for row in self.results.rows
        }

    @property
    def watched(self) -> str:
        """The validation metric of curves: the task's main metric."""
        return f"val/{self.results.value.rpartition('/')[2]}"

    def at(self, column: object) -> str:
        """Return the name of a column, such as "sparsity 0.9"."""
        return f"{self.results.column} {text_of(column)}"

    def columns(self, frame: pd.DataFrame) -> list[object]:
        """Return the columns of `frame` with sparse rows, or all columns if no row is sparse."""
        dense = {row.name for row in self.results.rows if row.method == "dense"}
        shown = set(frame["column"][~frame["row"].isin(dense)]) or set(frame["column"])
        return [column for column in self.results.columns if column in shown]


Drawn = tuple[Figure, pd.DataFrame]
Draw = Callable[[Evidence], Drawn | None]

figures: Registry[Draw] = Registry("figure", "gapbench.report.figures")
_reads: dict[str, frozenset[str]] = {}


def figure(name: str, reads: Collection[str] = KINDS) -> Callable[[Draw], Draw]:
    """Register a function that draws evidence.

    The function returns the figure with the plotted frame, or None if there is nothing to draw.

    Args:
        name: name of the figure.
        reads: kinds of history lines that the figure needs; reading takes longer than all tables.
    """
    _reads[name] = frozenset(reads)
    return figures.register(name)


def lines_of(names: Iterable[str]) -> frozenset[str]:
    """Return the kinds of history lines that the named figures need."""
    known = [name for name in names if name in figures]  # which imports what fills `_reads`
    return frozenset(kind for name in known for kind in _reads[name])


def evidence_of(
    results: Results,
    frame: pd.DataFrame,
    histories: Histories,
    first: Iterable[str] = (),
    to_baseline: Iterable[Comparison] = (),
    baseline: Mapping[str, Any] | None = None,
) -> Evidence:
    """Join the histories of all completed trials with the rows and columns of one task's results.

    The frame is that of `runs_frame`; see `Evidence` for the others.
    """
    own = frame[(frame["task"] == results.task) & (frame["state"] == COMPLETED)]
    names = {row.fields: row.name for row in results.rows}
    rows = [
        names[tuple(text_of(trial[field]) for field in results.fields)]
        for trial in own.to_dict("records")
    ]
    trials = pd.DataFrame(
        {"key": own["key"].tolist(), "row": rows, "column": own[results.column].tolist(),
         "seed": own["seed"].tolist()}
    )  # fmt: skip
    own_histories = Histories(
        curves=histories.curves.merge(trials, on="key"),
        changes=histories.changes.merge(trials, on="key"),
        layers=histories.layers.merge(trials, on="key"),
        left_out=histories.left_out,
    )
    return Evidence(results, own_histories, frozenset(first), tuple(to_baseline), baseline or {})


def in_model_order(layers: pd.DataFrame) -> list[str]:
    """Return the layers of all trials in model order; a trial does not list layers kept dense."""
    count = layers.groupby("key")["layer"].transform("size")
    widest = count.sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys(layers.loc[widest, "layer"]))


@dataclass(frozen=True)
class Look:
    """The colour, marker and dashes of a row."""

    colour: tuple[float, float, float]
    marker: str
    dashes: Any
    hollow: bool

    def line(self) -> dict[str, Any]:
        """Return the keywords of a line."""
        return {"color": self.colour, "linestyle": self.dashes}

    def mark(self) -> dict[str, Any]:
        """Return the keywords of a marker without a line."""
        face = "white" if self.hollow else self.colour
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face,
                "linestyle": "none"}  # fmt: skip


def looks(rows: Sequence[Row], first: Collection[str] = ()) -> dict[str, Look]:
    """Return a look for every row: the method's colour, lighter and dashed for variants.

    Every second variant has hollow markers. Rows of no claim are grey context; `first` names the
    rows of claims, and is empty if there is no claim.
    """
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for row in rows:
        count = sum(other.method == row.method for other in rows)
        number = seen.get(row.method, 0)
        seen[row.method] = number + 1
        own = methods[row.method].look if row.method in methods else None
        colour, marker = own or OTHER
        if first and row.name not in first:
            colour = OTHER[0]
        pale = 0.45 * number / max(1, count - 1)
        red, green, blue = (part + (1 - part) * pale for part in to_rgb(colour))
        dashes = DASHES[number % len(DASHES)]
        found[row.name] = Look((red, green, blue), marker, dashes, hollow=number % 2 == 1)
    return found


def shown(name: str) -> str:
    """Return a name that legends show; matplotlib leaves out names that begin with "_"."""
    return f" {name}" if name.startswith("_") else name


def partly(cells: Mapping[str, Cell]) -> str:
    """Return the share of planned seeds that have run, such as " (4/6)"; "" if all have run.

    Args:
        cells: cells by a distinguishing text, which is shown if the cells' counts differ.
    """
    counts = {column: (cell.n_run, cell.planned) for column, cell in cells.items()}
    counts = {column: count for column, count in counts.items() if count[0]}
    partly = {column: f"{run}/{all_}" for column, (run, all_) in counts.items() if run < all_}
    if len(set(counts.values())) > 1:
        partly = {column: f"{share} at {column}" for column, share in partly.items()}
    return f" ({', '.join(dict.fromkeys(partly.values()))})" if partly else ""


def panels(
    items: Sequence[T],
    width: float = 3.2,
    height: float = 2.6,
    across: int = 3,
    most: int = MOST_PANELS,
) -> tuple[Figure, list[Axes], list[T]]:
    """Return a figure, its axes in rows of `across`, and the item of each axes.

    Of more than `most` items, `most` are chosen at even distances, and the figure says so.
    """
    count = min(len(items), most)
    shown = [items[round(at * (len(items) - 1) / max(1, count - 1))] for at in range(count)]
    across = min(across, count)
    down = -(-count // across)
    made = Figure(figsize=(width * across + 0.3, height * down + 0.3))
    axes = [made.add_subplot(down, across, number + 1) for number in range(count)]
    if count < len(items):
        tell(made, f"{count} of {len(items)} panels; the CSV has all panels")
    return made, axes, shown


def mean_over(frame: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Return the means of the other columns over all lines with the same keys."""
    return frame.groupby(list(keys), sort=False, as_index=False).mean()


def plot_rows(
    ax: Axes,
    evidence: Evidence,
    frame: pd.DataFrame,
    x: str,
    y: str,
    style: Callable[[Look], dict[str, Any]],
    **further: Any,
) -> None:
    """Draw the points of every row of the panel, as lines or as marks."""
    for row in evidence.rows:
        own = frame[frame["row"] == row.name]
        if len(own):
            look = style(evidence.look[row.name])
            ax.plot(own[x], own[y], label=evidence.names[row.name], **look, **further)


def tell(made: Figure, words: str) -> None:
    """Say something above a figure, after what is said there already."""
    words = "; ".join(filter(None, (made.get_suptitle(), words)))
    made.suptitle(words, x=0.01, ha="left", fontsize=8)


def plain_decades(axis: Axis) -> None:
    """Put plain numbers at 1, 2 and 5 of each decade of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def share_y(axes: Sequence[Axes]) -> None:
    """Give all axes a common y range that contains all data, labelled on the left only."""
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
        place = ax.get_subplotspec()
        ax.tick_params(labelleft=place is None or place.is_first_col())


def tell_left_out(made: Figure, evidence: Evidence) -> None:
    """Write above a figure how many rows the figure leaves out, if any."""
    tell_most(made, len(evidence.rows), len(evidence.run), "rows")


def tell_most(made: Figure, shown: int, run: int, what: str) -> None:
    """Write above a figure how many of its rows or series are shown, unless all of them are."""
    if run > shown:
        tell(made, f"{shown} of {run} {what} ({what} of claims first); the CSV has all {what}")


def legend_below(made: Figure, axes: Iterable[Axes], across: int = 3) -> None:
    """Put one legend for all axes below the figure, and enlarge the figure by its height.

    A line of the legend has as many entries as fit, at most `across`.
    """
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    made.set_figwidth(max(made.get_figwidth(), LEGEND_WIDTH))
    widest = 0.5 + 0.065 * max(map(len, handles))
    across = max(1, min(across, int(made.get_figwidth() / widest)))
    made.set_figheight(made.get_figheight() + LEGEND_LINE * -(-len(handles) // across))
    made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=across)

"""Tables of one idea as grids of text, the same for every format."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from gapbench.analysis.cells import Results
from gapbench.analysis.stats import Summary

About = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Text:
    """What stands in one place of a grid, the number it is sorted by, and a trial it comes from."""

    text: str
    number: float | None = None
    trial: str | None = None


@dataclass(frozen=True)
class Grid:
    """A table of one idea.

    Attributes:
        groups: words over stretches of columns, as (words, number of columns); may be empty.
        keys: how many columns at the left name the row.
        on_screen: whether a terminal shows it; the widest grids are left to files.
        only_in_files: heads of columns that a terminal does not show.
        notes: sentences below it.
        about: methods and column of every line, by which a page filters; "" is of all columns.
    """

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[Text, ...], ...]
    keys: int
    groups: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    on_screen: bool = True
    only_in_files: tuple[str, ...] = ()
    about: tuple[About, ...] = ()

    @property
    def over(self) -> list[str]:
        """The words over each column."""
        words = [words for words, width in self.groups for _ in range(width)]
        return words or [""] * len(self.head)

    def frame(self) -> pd.DataFrame:
        """Return the texts, with each head under the words over it as one name."""
        heads = [", ".join(filter(None, pair)) for pair in zip(self.over, self.head, strict=True)]
        return pd.DataFrame([[cell.text for cell in row] for row in self.body], columns=heads)

    def is_numeric(self, index: int) -> bool:
        """Say whether a column holds numbers."""
        return any(row[index].number is not None for row in self.body)


@dataclass(frozen=True)
class Table:
    """All grids about one ablation on one task."""

    name: str
    question: str
    task: str
    grids: tuple[Grid, ...]


def decimals(results: Results) -> int:
    """Return how many decimals a value is shown with."""
    return 2 if results.metric.unit else 4


def interval(summary: Summary, places: int, sign: str = "") -> str:
    """Return mean ± half-width; `sign` is "+" where a positive mean is to have one too."""
    words = f"{summary.mean:{sign}.{places}f}"
    return words if summary.half_width is None else f"{words} ± {summary.half_width:.{places}f}"

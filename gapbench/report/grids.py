"""Grids of text: small tables in a common form for all output formats."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from gapbench.analysis.cells import Results
from gapbench.analysis.records import NOTHING
from gapbench.analysis.stats import Summary

About = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Text:
    """One cell of a grid: its text, its number for sorting, and the key of one of its trials."""

    text: str
    number: float | None = None
    trial: str | None = None


def number(value: float | None, form: str) -> Text:
    """Return a number as text of a form, or the sign for nothing."""
    return Text(NOTHING) if value is None else Text(f"{value:{form}}", value)


@dataclass(frozen=True)
class Grid:
    """A small table.

    Attributes:
        groups: headings over groups of columns, as (heading, number of columns); may be empty.
        keys: number of columns at the left that name the row.
        on_screen: whether a terminal shows the grid; the widest grids are in files only.
        only_in_files: heads of columns that a terminal does not show.
        notes: sentences below the grid.
        about: methods and column of every line, for the filters of a page; "" stands for all
            columns.
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
        """The group heading over each column."""
        words = [words for words, width in self.groups for _ in range(width)]
        return words or [""] * len(self.head)

    def frame(self) -> pd.DataFrame:
        """Return the texts as a frame, whose column names join group heading and head."""
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
    """Return the number of decimals for a value."""
    return 2 if results.metric.unit else 4


def interval(summary: Summary, places: int) -> str:
    """Return mean ± half-width."""
    words = f"{summary.mean:.{places}f}"
    return words if summary.half_width is None else f"{words} ± {summary.half_width:.{places}f}"

"""Text tables of many lines: one pass over the cells, so that ten thousand rows are fast."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from gapbench.cli.terminal import clean

GAP = 2
LEAST = 10  # characters that a wrapped column has even where nothing is left for it


@dataclass(frozen=True)
class Column:
    """One column: heading, alignment, and behaviour on a narrow terminal.

    Attributes:
        wraps: whether cells continue on further lines if the terminal is too narrow.
    """

    heading: str
    right: bool = False
    wraps: bool = False


def table_text(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int, title: str = ""
) -> Text:
    """Return a table as text; cells are shown literally, without markup.

    Args:
        columns: the columns, of which at most one wraps.
        rows: the rows, with one cell per column.
        width: width of the terminal in characters.
        title: title above the table.
    """
    head, *body = laid_out(columns, rows, width)
    over = (f"{title}\n" if title else "", "italic")
    return Text.assemble(over, (head, "bold"), "\n".join(["", *body]), no_wrap=True)


def laid_out(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """Yield the lines of a table: the headings, then every row."""
    cells = [[column.heading for column in columns]]
    cells += ([clean(" ".join(cell.split())) for cell in row] for row in rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    over = sum(widths) + GAP * (len(widths) - 1) - width
    wrapped = next((at for at, column in enumerate(columns) if column.wraps), None)
    if over > 0 and wrapped is not None:
        widths[wrapped] = min(widths[wrapped], max(LEAST, widths[wrapped] - over))
    for row in cells:
        rest: list[str] = []
        if wrapped is not None and len(row[wrapped]) > widths[wrapped]:
            row[wrapped], *rest = textwrap.wrap(row[wrapped], widths[wrapped])
        yield _line(columns, row, widths)
        for words in rest:
            more = [words if at == wrapped else "" for at in range(len(columns))]
            yield _line(columns, more, widths)


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    placed = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, cell, width in zip(columns, row, widths, strict=True)
    )
    return (" " * GAP).join(placed).rstrip()

"""Rendering of grids as Markdown, LaTeX, HTML and terminal text; values appear literally."""

from __future__ import annotations

import html
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import jinja2
import pandas as pd
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text as RichText

from gapbench.report.grids import Grid, Table, Text

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&])")
_LABEL = re.compile(r"[^\w:.-]", re.ASCII)  # what a label cannot hold
_TEX = str.maketrans({
    "\\": r"\textbackslash ", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde ", "^": r"\textasciicircum ",
})  # fmt: skip
TEX_HEAD = 10  # signs in a line of a head
_TEX_TOP = r"""% needs \usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}
% and, for pdflatex, \DeclareUnicodeCharacter{03BA}{$\kappa$}; other signs need lualatex and a font
% a table that is wider than a line is shrunk to it, others stay as they are
\providecommand{\gapbenchfit}[1]{\sbox0{#1}%
  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}"""


def template(name: str) -> jinja2.Template:
    """Return a template of this package; of HTML it escapes values, Markdown has the filter md."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gapbench.report", ""),
        autoescape=".html" in name,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = md_escape
    return environment.get_template(name)


# -- Markdown ------------------------------------------------------------------------------------


def markdown(tables: Sequence[Table]) -> str:
    """Return all tables as one Markdown document."""
    parts = [f"# {md_escape(tables[0].name)}", md_escape(tables[0].question)]
    for table in tables:
        parts.append(f"## {md_escape(table.task)}" if table.task else "")
        for grid in table.grids:
            parts += [f"**{md_escape(grid.title)}**", _md_grid(grid)]
            parts += [f"{md_escape(note)}" for note in grid.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def md_escape(text: str) -> str:
    """Return `text` escaped, so that Markdown shows it literally."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _md_grid(grid: Grid) -> str:
    """Return a pipe table, whose single line of heads includes the group headings."""
    if not grid.body:
        return ""
    lines = [_md_line(list(grid.frame().columns))]
    numeric = [grid.is_numeric(index) for index in range(len(grid.head))]
    lines.append("|" + "|".join("---:" if right else ":---" for right in numeric) + "|")
    lines += [_md_line([cell.text for cell in row]) for row in grid.body]
    return "\n".join(lines)


def _md_line(words: Sequence[str]) -> str:
    return "| " + " | ".join(md_escape(word) for word in words) + " |"


# -- LaTeX ---------------------------------------------------------------------------------------


def latex(tables: Sequence[Table]) -> str:
    """Return all grids as floats no wider than a line; a comment names the required packages."""
    parts = [_TEX_TOP]
    for table in tables:
        for number, grid in enumerate(table.grids, 1):
            if grid.body:
                parts.append(_tex_grid(grid, f"tab:{table.name}:{table.task}:{number}"))
    return "\n\n".join(parts) + "\n"


def tex_escape(text: str) -> str:
    """Return `text` escaped as by pandas, so that LaTeX prints it literally."""
    return " ".join(text.split()).translate(_TEX)


def _tex_cell(text: str) -> str:
    # an empty group in front: LaTeX would read [ or * at the start of a line as an option of \\
    return "{}" * text.startswith(("[", "*")) + tex_escape(text)


def _tex_head(text: str) -> str:
    """Return a head in short lines, since the values below are short."""
    lines = textwrap.wrap(text, TEX_HEAD, break_long_words=False)
    stacked = r" \\ ".join(map(tex_escape, lines))
    return rf"\shortstack{{{stacked}}}" if stacked else ""


def _tex_grid(grid: Grid, label: str) -> str:
    frame = grid.frame()
    if grid.groups:
        frame.columns = pd.MultiIndex.from_arrays([grid.over, list(grid.head)])
    style = frame.style.format(_tex_cell).format_index(_tex_head, axis=1)
    sides = "".join("r" if grid.is_numeric(index) else "l" for index in range(len(grid.head)))
    body = style.hide(axis="index").to_latex(column_format=sides, hrules=True, multicol_align="c")
    lines = [r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
             rf"\caption{{{tex_escape(grid.title)}}}", rf"\label{{{_LABEL.sub('-', label)}}}",
             rf"\gapbenchfit{{{body.strip()}}}"]  # fmt: skip
    lines += [rf"\par\smallskip {tex_escape(note)}\par" for note in grid.notes]
    return "\n".join([*lines, r"\end{table}"])


# -- HTML ----------------------------------------------------------------------------------------


def html_grid(grid: Grid) -> str:
    """Return one table element, with numbers in data-value for sorting.

    The attributes data-methods and data-column serve the filters of a page.
    """
    lines = ["<table>", f"<caption>{html.escape(grid.title)}</caption>"]
    # a head of scope "colgroup" is about one of these
    lines += [f'<colgroup span="{width}"></colgroup>' for _, width in grid.groups]
    lines.append("<thead>")
    if grid.groups:
        cells = "".join(
            f'<th scope="colgroup" colspan="{width}"{_column(words)}>{html.escape(words)}</th>'
            if words
            else f'<td colspan="{width}"></td>'
            for words, width in grid.groups
        )
        lines.append(f'<tr class="groups">{cells}</tr>')
    heads = "".join(
        f'<th scope="col"{_column(words)}>{html.escape(head)}</th>'
        for words, head in zip(grid.over, grid.head, strict=True)
    )
    lines += [f'<tr class="heads">{heads}</tr>', "</thead>", "<tbody>"]
    for row, about in itertools.zip_longest(grid.body, grid.about):
        methods, column = about or ((), "")
        of = f' data-methods="{html.escape(" ".join(methods))}"' if methods else ""
        lines.append(f"<tr{of}{_column(column)}>{_html_cells(grid, row)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _column(words: str) -> str:
    return f' data-column="{html.escape(words)}"' if words else ""


def _html_cells(grid: Grid, row: Sequence[Text]) -> str:
    cells = []
    for index, (over, cell) in enumerate(zip(grid.over, row, strict=True)):
        number = "" if cell.number is None else f' data-value="{cell.number!r}"'
        tag = 'th scope="row"' if index < grid.keys else "td"
        side = ' class="number"' if grid.is_numeric(index) else ""
        words = html.escape(cell.text)
        words = f'<a href="#trial-{cell.trial}">{words}</a>' if cell.trial else words
        cells.append(f"<{tag}{side}{_column(over)}{number}>{words}</{tag.split()[0]}>")
    return "".join(cells)


# -- the terminal --------------------------------------------------------------------------------


def screen(tables: Sequence[Table]) -> RenderableType:
    """Return the grids that fit a terminal of 80 columns: results, and answers in words."""
    shown: list[RenderableType] = []
    for table in tables:
        for grid in filter(lambda grid: grid.on_screen, table.grids):
            shown.append(RichText(grid.title, style="bold"))
            if grid.body:
                shown += [_rich(grid, words, columns) for words, columns in _narrow(grid)]
            shown += [RichText(note) for note in grid.notes]
    return Group(*shown)


def _narrow(grid: Grid) -> Iterator[tuple[str, list[int]]]:
    """Yield the parts of a grid to show one below the other, as (group heading, columns)."""
    if not grid.groups:
        yield "", [i for i, head in enumerate(grid.head) if head not in grid.only_in_files]
    start = 0
    for words, width in grid.groups:
        if words:
            shown = [
                i for i in range(start, start + width) if grid.head[i] not in grid.only_in_files
            ]
            yield words, [*range(grid.keys), *shown]
        start += width


def _rich(grid: Grid, words: str, columns: Sequence[int]) -> RenderableType:
    rich = RichTable(title=RichText(words) if words else None, title_justify="left")
    for index in columns:
        side: Literal["left", "right"] = "right" if grid.is_numeric(index) else "left"
        # names and heads may take two lines; values stay whole, and only names are wrapped
        texts = [*(row[index].text for row in grid.body), *grid.head[index].split()]
        width = None if index < grid.keys else max(map(len, texts))
        rich.add_column(RichText(grid.head[index]), justify=side, width=width)
    for row in grid.body:
        rich.add_row(*(RichText(row[index].text) for index in columns))
    return rich

"""Grids as Markdown, LaTeX, HTML, and on the terminal; every value appears literally."""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text as RichText

from gapbench.report.tables import Grid, Table, Text

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&])")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\texttt{\char34}",  # of the fonts that every LaTeX has, only this has a straight one
    "–": r"\textendash{}", "—": r"\textemdash{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}", "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}", "ß": r"\ss{}", "æ": r"\ae{}", "ø": r"\o{}", "ł": r"\l{}",
    "≈": r"$\approx$", "≠": r"$\neq$", "≥": r"$\geq$", "≤": r"$\leq$", "…": r"\dots{}",
    "→": r"$\rightarrow$",
}  # fmt: skip
_GREEK = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"
_GREEK_NAMES = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon
phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
"""
_MATHS = dict(zip(_GREEK, _GREEK_NAMES.split(), strict=True))
_ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327", "`'^~\"rvc", strict=True))
_LABEL = re.compile(r"[^\w:.-]", re.ASCII)  # what a label cannot hold
_MINUS = re.compile(r"(?<!\S)-(?=\d)")
_LIGATURE = re.compile(r"(?<=[-`',!?])(?=[-`',])")  # within what TeX would make one sign of
TEX_HEAD, TEX_NAME = 8, 18  # signs in a line of a head over short values, and in one of a name
_TEX_TOP = r"""% needs \usepackage{booktabs,graphicx}
% a table that is wider than a line is shrunk to it, others stay as they are
\providecommand{\gapbenchfit}[1]{\sbox0{#1}%
  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}
\providecommand{\gapbenchlines}[3]{\begin{tabular}[#1]{@{}#2@{}}#3\end{tabular}}"""

_TEX_SIGN = r"""% lualatex and xelatex print a sign that the font has; else its code point stands
\providecommand{\gapbenchsign}[1]{\ifdefined\Umathchar
  \iffontchar\font"#1 \char"#1 \else\texttt{U+#1}\fi\else\texttt{U+#1}\fi}"""


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
    """Return `text` so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _md_grid(grid: Grid) -> str:
    """Return a pipe table; it has one line of heads, so groups go into them."""
    if not grid.body:
        return ""
    lines = [_md_line(full_heads(grid))]
    numeric = [_is_numeric(grid, index) for index in range(len(grid.head))]
    lines.append("|" + "|".join("---:" if right else ":---" for right in numeric) + "|")
    lines += [_md_line([cell.text for cell in row]) for row in grid.body]
    return "\n".join(lines)


def _md_line(words: Sequence[str]) -> str:
    return "| " + " | ".join(md_escape(word) for word in words) + " |"


def full_heads(grid: Grid) -> list[str]:
    """Return each head with the words over it, where a format has one line of heads."""
    over = [words for words, width in grid.groups for _ in range(width)]
    over = over or [""] * len(grid.head)
    return [", ".join(filter(None, (o, head))) for o, head in zip(over, grid.head, strict=True)]


def _is_numeric(grid: Grid, index: int) -> bool:
    return any(row[index].number is not None for row in grid.body)


# -- LaTeX ---------------------------------------------------------------------------------------


def latex(tables: Sequence[Table]) -> str:
    """Return all grids as floats no wider than a line; the first comment says what they need."""
    parts = [_TEX_TOP]
    for table in tables:
        for number, grid in enumerate(table.grids, 1):
            if grid.body:
                parts.append(_tex_grid(grid, f"tab:{table.name}:{table.task}:{number}"))
    if any(r"\gapbenchsign" in part for part in parts):
        parts.insert(1, _TEX_SIGN)
    return "\n\n".join(parts) + "\n"


def tex_escape(text: str) -> str:
    """Return `text` so that LaTeX prints it as it is; a minus sign is as long as a plus."""
    text = _MINUS.sub("−", " ".join(text.split()))
    return _LIGATURE.sub("{}", "".join(map(_tex_sign, text)))


def _tex_sign(sign: str) -> str:
    """Return a sign as plain LaTeX prints it; one that its fonts lack is a matter of the engine."""
    if sign in _LATEX or (sign.isascii() and sign.isprintable()):
        return _LATEX.get(sign, sign)
    if sign in _MATHS:
        return rf"$\{_MATHS[sign]}$"
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return rf"\gapbenchsign{{{ord(sign):04X}}}"


def _tex_grid(grid: Grid, label: str) -> str:
    sides = ["r" if _is_numeric(grid, i) else "l" for i in range(len(grid.head))]
    lines = [r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
             rf"\caption{{{tex_escape(grid.title)}}}", rf"\label{{{_LABEL.sub('-', label)}}}",
             r"\gapbenchfit{%",
             rf"\begin{{tabular}}{{{''.join(sides)}}}", r"\toprule"]  # fmt: skip
    if grid.groups:
        lines.append(_tex_line([rf"\multicolumn{{{width}}}{{c}}{{{tex_escape(words)}}}"
                                for words, width in grid.groups]))  # fmt: skip
        lines += _rules(grid)
    heads = [_tex_head(grid, index, side) for index, side in enumerate(sides)]
    lines += [_tex_line(heads), r"\midrule"]
    lines += [_tex_line([_tex_cell(cell) for cell in row]) for row in grid.body]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [rf"\par\smallskip {tex_escape(note)}\par" for note in grid.notes]
    return "\n".join([*lines, r"\end{table}"])


def _tex_head(grid: Grid, index: int, side: str) -> str:
    longest = max(len(row[index].text) for row in grid.body)
    return _tex_lines(grid.head[index], max(longest, TEX_HEAD), "b", side)


def _tex_cell(cell: Text) -> str:
    is_value = cell.number is not None
    return tex_escape(cell.text) if is_value else _tex_lines(cell.text, TEX_NAME, "t", "l")


def _tex_lines(text: str, width: int, place: str, side: str) -> str:
    """Return words in lines of about `width` signs; only heads are broken at hyphens too."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=place == "b")
    if len(lines) < 2:
        return tex_escape(text)
    stacked = " ".join(_tex_line([tex_escape(line)]) for line in lines)
    return rf"\gapbenchlines{{{place}}}{{{side}}}{{{stacked}}}"


def _tex_line(cells: Sequence[str]) -> str:
    # an empty group in front: [ or * at the begin of a line would be read as an option of \\
    return " & ".join(f"{{}}{cell}" if cell[:1] in ("[", "*") else cell for cell in cells) + r" \\"


def _rules(grid: Grid) -> list[str]:
    rules, start = [], 1
    for words, width in grid.groups:
        if words:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return rules


# -- HTML ----------------------------------------------------------------------------------------


def html_grid(grid: Grid) -> str:
    """Return one table element; numbers stand in data-value, for sorting."""
    lines = ["<table>", f"<caption>{html.escape(grid.title)}</caption>"]
    # a head of scope "colgroup" is about one of these
    lines += [f'<colgroup span="{width}"></colgroup>' for _, width in grid.groups]
    lines.append("<thead>")
    if grid.groups:
        cells = "".join(
            f'<th scope="colgroup" colspan="{width}">{html.escape(words)}</th>'
            if words
            else f'<td colspan="{width}"></td>'
            for words, width in grid.groups
        )
        lines.append(f'<tr class="groups">{cells}</tr>')
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in grid.head)
    lines += [f'<tr class="heads">{heads}</tr>', "</thead>", "<tbody>"]
    lines += [_html_row(grid, row) for row in grid.body]
    return "\n".join([*lines, "</tbody>", "</table>"])


def _html_row(grid: Grid, row: Sequence[Text]) -> str:
    cells = []
    for index, cell in enumerate(row):
        number = "" if cell.number is None else f' data-value="{cell.number!r}"'
        tag = 'th scope="row"' if index < grid.keys else "td"
        side = ' class="number"' if _is_numeric(grid, index) else ""
        cells.append(f"<{tag}{side}{number}>{html.escape(cell.text)}</{tag.split()[0]}>")
    return f"<tr>{''.join(cells)}</tr>"


def html_tables(tables: Sequence[Table]) -> str:
    """Return all grids as a whole HTML document."""
    parts = []
    for table in tables:
        parts.append(f"<h2>{html.escape(table.task)}</h2>")
        for grid in table.grids:
            parts.append(html_grid(grid) if grid.body else f"<p>{html.escape(grid.title)}</p>")
            parts += [f"<p>{html.escape(note)}</p>" for note in grid.notes]
    name = html.escape(tables[0].name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"</head><body>\n<h1>{name}</h1>\n<p>{html.escape(tables[0].question)}</p>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


# -- the terminal --------------------------------------------------------------------------------


def screen(tables: Sequence[Table]) -> RenderableType:
    """Return what a terminal of 80 columns can show: results, and the words on comparisons."""
    shown: list[RenderableType] = []
    for table in tables:
        for grid in filter(lambda grid: grid.on_screen, table.grids):
            shown.append(RichText(grid.title, style="bold"))
            if grid.body:
                shown += [_rich(grid, words, columns) for words, columns in _narrow(grid)]
            shown += [RichText(note) for note in grid.notes]
    return Group(*shown)


def _narrow(grid: Grid) -> Iterator[tuple[str, list[int]]]:
    """Yield the parts of a grid that are shown one below the other: words over it, and columns."""
    if not grid.groups:
        yield "", [i for i, head in enumerate(grid.head) if head not in grid.only_in_files]
    start = 0
    for words, width in grid.groups:
        if words:
            yield words, [*range(grid.keys), *range(start, start + width)]
        start += width


def _rich(grid: Grid, words: str, columns: Sequence[int]) -> RenderableType:

    rich = RichTable(title=RichText(words) if words else None, title_justify="left")
    for index in columns:
        side: Literal["left", "right"] = "right" if _is_numeric(grid, index) else "left"
        # names and heads may take two lines; values stay whole, and only names give way
        texts = [*(row[index].text for row in grid.body), *grid.head[index].split()]
        width = None if index < grid.keys else max(map(len, texts))
        rich.add_column(RichText(grid.head[index]), justify=side, width=width)
    for row in grid.body:
        rich.add_row(*(RichText(row[index].text) for index in columns))
    return rich

from __future__ import annotations

from gapbench.cli.columns import Column, laid_out, table_text

COLUMNS = (Column("key"), Column("trial", wraps=True), Column("left", right=True))
ROWS = [("0a", "C-GaP [bold]uniform 0.95", "12m"), ("0b", "dense", "3h05m")]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(laid_out(COLUMNS, ROWS, 80)) == [
        "key  trial                      left",
        "0a   C-GaP [bold]uniform 0.95    12m",
        "0b   dense                     3h05m",
    ]


def test_one_column_gives_way_on_a_narrow_terminal() -> None:
    assert list(laid_out(COLUMNS, ROWS, 30)) == [
        "key  trial                left",
        "0a   C-GaP                 12m",
        "     [bold]uniform 0.95",
        "0b   dense               3h05m",
    ]


def test_cells_are_no_markup_and_hold_no_line_breaks() -> None:
    text = table_text(COLUMNS, [("0a", "two\nlines [red]", "")], 80, title="all")
    assert text.plain.splitlines() == ["all", "key  trial            left", "0a   two lines [red]"]

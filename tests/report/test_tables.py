from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evaluation import Evaluation, evaluate
from gapbench.analysis.sequential import welch
from gapbench.analysis.stats import summary
from gapbench.report import render
from gapbench.report.grids import Table
from gapbench.report.numbers import answers_frame, cells_frame
from gapbench.report.tables import tables_of
from gapbench.spec.grid import Entry
from gapbench.spec.schema import AblationSpec
from tests.report.folders import around, entry_of, spec_of, trial_of, write_result

NASTY = r"<b>50% & $x_1$ | \alpha{} #1</b> [a] ~^ &lt;"


def table(tmp_path: Path, entries: list[Entry], spec: AblationSpec) -> Table:
    (found,) = tables_of(evaluation(tmp_path, entries, spec))
    return found


def evaluation(tmp_path: Path, entries: list[Entry], spec: AblationSpec) -> Evaluation:
    return evaluate(runs_frame(entries, scan(tmp_path)), spec)


def lines(frame: pd.DataFrame) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))


def write(tmp_path: Path, name: str, values: list[float | None], **options: object) -> list[Entry]:
    entries = []
    for seed, value in enumerate(values):
        trial = trial_of(seed=seed, **options)
        entries.append(entry_of(trial, name))
        if value is not None:
            write_result(tmp_path, trial, value)
    return entries


def texts(found: Table, grid: int = 0) -> list[list[str]]:
    return [[cell.text for cell in row] for row in found.grids[grid].body]


def test_cells_say_mean_and_half_width_beside_the_published_value(tmp_path: Path) -> None:
    entries = write(tmp_path, "C-GaP", [88.5, 88.1, 87.8])
    found = table(tmp_path, entries, spec_of(rows=["label"]))
    half = summary([88.5, 88.1, 87.8]).half_width
    assert found.grids[0].head == (
        "method", "test accuracy (%)", "training FLOPs", "published: imagenet",
    )  # fmt: skip
    assert found.grids[0].groups == (("", 1), ("90 % sparse", 3))
    assert texts(found) == [["C-GaP", f"88.13 ± {half:.2f}", "0.375", "76.3"]]
    assert f"{half:.2f}" == "0.87"
    assert any("n = 3." in note for note in found.grids[0].notes)
    assert any("not for fashion_mnist" in note for note in found.grids[0].notes)


def test_rows_say_what_has_not_run_and_what_ran_in_part(tmp_path: Path) -> None:
    entries = write(tmp_path, "all", [88.0, 89.0], partitions=2)
    entries += write(tmp_path, "part", [88.0, 89.0, None, None], partitions=3)
    entries += write(tmp_path, "none", [None, None], partitions=4)
    entries += write(tmp_path, "lost", [88.0, math.nan, 89.0], partitions=5)
    rows = texts(table(tmp_path, entries, spec_of(rows=["label"])))
    assert [row[1] for row in rows] == [
        "88.50 ± 6.35",
        "88.50 ± 6.35 (2/4)",
        "not run",
        "88.50 ± 6.35, 1 diverged",
    ]


def test_a_table_of_one_seed_says_so(tmp_path: Path) -> None:
    entries = write(tmp_path, "a", [88.0], partitions=2) + write(tmp_path, "b", [87.0])
    spec = spec_of(rows=["label"], baseline={"partitions": 4})
    found = table(tmp_path, entries, spec)
    assert texts(found)[0][1] == "88.00"
    assert found.grids[0].notes[0].startswith("ONE SEED")
    assert texts(found, 1)[0][3:] == ["1", "+1.00", "–", "–", "–", "not resolved"]
    assert "nothing can be tested" in found.grids[1].notes[0]


def test_a_table_without_any_run_says_so(tmp_path: Path) -> None:
    entries = write(tmp_path, "a", [None])
    found = table(tmp_path, entries, spec_of(rows=["label"]))
    assert found.grids[0].notes[0] == "No trial of this table has run."
    assert [grid.body for grid in found.grids[2:]] == [(), ()]  # behind the published table
    assert "not run" in render.markdown([found])


def test_the_comparison_grid_says_p_and_verdict(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", around(90, 0.1, 6))
    entries += write(tmp_path, "two", around(80.7, 0.5, 6), partitions=2)
    entries += write(tmp_path, "three", around(80, 0.1, 7), partitions=3)
    entries += write(tmp_path, "five", [60.0, 14.0, *around(60, 0.1, 4)], partitions=5)
    entries += write(tmp_path, "one", around(80, 0.1, 6), partitions=1)
    spec = spec_of(rows=["label"], baseline={"partitions": 1})
    grid = table(tmp_path, entries, spec).grids[1]
    assert grid.title == "Difference to partitions 1 (fashion_mnist)"
    # four: error .1 sqrt(.4), t(10) = 2.228 and for what is detectable 4.570; two: error
    # sqrt(.26 / 5), t(5.40) = 2.514 and 5.79, sd .395: the next look
    assert [[cell.text for cell in row[:-1]] for row in grid.body[:2]] == [
        ["four", "one", "0.9", "6", "+10.00 ± 0.14", "< 0.001", "0.29", "–"],
        ["two", "one", "0.9", "6", "+0.70 ± 0.57", "0.025", "1.32", "12"],
    ]
    assert [[row[i].text for i in (0, 3, 4)] for row in grid.body[2:]] == [
        ["three", "7, 6", "-0.01 ± 0.13"], ["five", "5, 6", "-20.00 ± 0.14, 1 diverged"],
    ]  # fmt: skip
    assert [row[-1].text for row in grid.body] == [
        "better", "not resolved", "equivalent within 0.3", "worse",
    ]  # fmt: skip
    assert (
        "These comparisons are exploratory: each errs in at most one of twenty studies."
        in grid.notes
    )


def test_a_baseline_whose_seed_diverged_is_worse_and_never_better(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", around(90, 0.1, 6))
    entries += write(tmp_path, "two", around(70, 0.1, 6), partitions=2)
    entries += write(tmp_path, "one", [*around(80, 0.1, 5), math.nan], partitions=1)
    spec = spec_of(rows=["label"], baseline={"partitions": 1})
    assert [row[-1] for row in texts(table(tmp_path, entries, spec), 1)] == [
        "better", "not resolved",
    ]  # fmt: skip


def test_the_claim_gets_a_grid_of_its_own(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", around(80, 0.1, 6))
    entries += write(tmp_path, "one", around(90, 0.1, 6), partitions=1)
    claim = {
        "asks": "Four?",
        "source": "slides",
        "better": {"partitions": 4},
        "than": {"partitions": 1},
    }
    found = table(tmp_path, entries, spec_of(rows=["label"], claims=[claim]))
    assert found.grids[1].title == "Four? (slides; fashion_mnist)"
    assert texts(found, 1)[0][-1] == "contradicted"


def test_a_claim_about_a_row_that_diverged_says_so(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", [math.nan] * 3)
    entries += write(tmp_path, "one", [90.0, 90.2, 90.1], partitions=1)
    claim = {"asks": "Four?", "better": {"partitions": 4}, "than": {"partitions": 1}}
    spec = spec_of(rows=["label"], claims=[claim])
    found = table(tmp_path, entries, spec)
    assert texts(found, 1)[0][3:] == ["0", "3 diverged", "–", "–", "–", "–"]
    [line] = lines(answers_frame(evaluation(tmp_path, entries, spec)))
    assert (line["answer"], line["diverged"], line["difference"]) == ("diverged", "3", "")


def test_what_columns_mean_stands_below_the_first_that_has_them(tmp_path: Path) -> None:
    entries = write(tmp_path, "dense", [90.0, 90.2, 90.1], method="dense")
    entries += write(tmp_path, "four", [90.0, 90.1, 90.3])
    entries += write(tmp_path, "one", [89.0], partitions=1)
    sides = {"better": {"partitions": 4}, "than": {"method": "dense"}}
    none = {"asks": "One seed?", "better": {"partitions": 1}, "than": {"method": "dense"}}
    within, more = {"asks": "As good?", **sides, "margin": 0.5}, {"asks": "Better?", **sides}
    spec = spec_of(rows=["label"], baseline={"partitions": 1}, claims=[none, within, more])
    notes = [" ".join(grid.notes) for grid in table(tmp_path, entries, spec).grids[1:-3]]
    assert ["p-value of the Welch test" in note for note in notes] == [False, False, True, False]
    words = "6 seeds at level 0.005, 12 seeds at level 0.015, 20 seeds at level 0.03"
    assert words in notes[2]
    assert "nothing can be tested" in notes[0] and "nothing can be tested" in notes[1]
    assert notes[2].endswith("Contradicted: worse by more than the margin.")
    assert notes[3] == "The columns are explained above."


def test_cost_and_density_have_a_grid(tmp_path: Path) -> None:
    entries = write(tmp_path, "a", [88.0, 89.0])
    grid = table(tmp_path, entries, spec_of(rows=["label"])).grids[-1]
    line = dict(zip(grid.head, (cell.text for cell in grid.body[0]), strict=True))
    assert line["training FLOPs (× dense recipe)"] == "0.375"
    assert line["coverage"] == "0.995" and line["machine-epochs"] == "60"
    assert line["density, whole model"] == "0.150" and line["seconds"] == "130"


def test_csv_has_every_number_in_full(tmp_path: Path) -> None:
    values = [88.5, 88.1, 87.8]
    entries = write(tmp_path, "four", list(values))
    entries += write(tmp_path, "one", [87.9, 87.9, 87.1], partitions=1)
    spec = spec_of(rows=["label", "partitions"], baseline={"partitions": 1})
    first, second = lines(cells_frame(evaluation(tmp_path, entries, spec)))
    expected = summary(values)
    assert float(first["mean"]) == expected.mean and float(first["sd"]) == expected.sd
    assert float(first["half_width"]) == expected.half_width
    assert (first["label"], first["partitions"], first["published"]) == ("four", "4", "76.3")
    assert json.loads(first["values"]) == {"0": 88.5, "1": 88.1, "2": 87.8}
    assert first["baseline"] == "one, κ = 1" and first["verdict"] == "not resolved"
    assert (first["diverged"], first["look"], first["loss"]) == ("0", "0", "0.5")
    assert (first["difference_n"], first["against_n"]) == ("3", "3")
    found = welch(values, [87.9, 87.9, 87.1])
    assert float(first["difference"]) == found.mean and float(first["p"]) == found.p()
    assert float(first["difference_half_width"]) == found.half_width(0.05)
    assert second["difference"] == "" and second["published"] == "75.9"
    for line in (first, second):
        assert line["cost/train_flops_ratio"] == "0.375"
        assert json.loads(line["values"]).keys() == {"0", "1", "2"}


def test_answers_have_every_number_in_full_too(tmp_path: Path) -> None:
    lower, higher = around(80, 0.1, 7), [*around(90, 0.1, 6), math.nan]
    entries = write(tmp_path, "four", lower) + write(tmp_path, "one", higher, partitions=1)
    better, than = {"partitions": 4}, {"partitions": [1, 8]}
    claims = [{"asks": "Four?", "better": better, "than": than},
              {"asks": "As good?", "better": better, "than": than, "margin": 0.5}]  # fmt: skip
    spec = spec_of(rows=["label"], claims=claims)
    first, second = lines(answers_frame(evaluation(tmp_path, entries, spec)))
    found = welch(lower, higher[:6])
    for line, bound in ((first, 0.0), (second, -0.5)):
        assert (line["row"], line["against"], line["answer"]) == ("four", "one", "contradicted")
        assert (line["difference_n"], line["against_n"], line["diverged"]) == ("7", "6", "1")
        assert float(line["difference"]) == found.mean and line["look"] == "6"
        assert float(line["difference_half_width"]) == found.half_width(0.05)
        assert float(line["p"]) == found.p(bound) and line["seeds_needed"] == ""
    look = welch(lower[:6], higher[:6])
    assert float(first["detectable"]) == pytest.approx(look.detectable(0.005))
    assert (first["margin"], second["margin"], second["detectable"]) == ("", "0.5", "")


def test_one_seed_has_no_interval_in_csv(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", [80.0, 81.0]) + write(tmp_path, "one", [70.0], partitions=1)
    spec = spec_of(rows=["label"], baseline={"partitions": 1})
    line, _ = lines(cells_frame(evaluation(tmp_path, entries, spec)))
    assert (line["difference"], line["difference_n"], line["against_n"]) == ("10.5", "2", "1")
    for name in ("difference_half_width", "p", "detectable", "seeds_needed", "test_mean"):
        assert line[name] == ""


@pytest.fixture
def nasty(tmp_path: Path) -> Table:
    entries = write(tmp_path, NASTY, [88.5, 88.1])
    return table(tmp_path, entries, spec_of(rows=["label"]))


def test_markdown_shows_special_characters_literally(nasty: Table) -> None:
    line = next(line for line in render.markdown([nasty]).splitlines() if "alpha" in line)
    escaped = r"\<b\>50% \& \$x\_1\$ \| \\alpha{} \#1\</b\> \[a\] \~^ \&lt;"
    assert line.startswith(f"| {escaped} | 88.30 ±")


def test_html_shows_special_characters_literally(nasty: Table) -> None:
    text = render.html_grid(nasty.grids[0])
    assert "<b>" not in text
    assert "&lt;b&gt;50% &amp; $x_1$ | \\alpha{} #1&lt;/b&gt; [a] ~^ &amp;lt;" in text
    assert 'data-value="88.3' in text


def test_lines_say_the_methods_and_columns_that_a_page_filters_by(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", [90.0, 91.0]) + write(tmp_path, "d", [92.0], method="dense")
    spec = spec_of(rows=["label"], baseline={"method": "dense"})
    results, compared, *_, cost = table(tmp_path, entries, spec).grids
    assert results.about == ((("c_gap",), ""), (("dense",), ""))
    assert compared.about == ((("c_gap", "dense"), "90 % sparse"),)
    assert cost.about == ((("c_gap",), "90 % sparse"), (("dense",), ""))
    text = render.html_grid(compared)
    assert '<tr data-methods="c_gap dense" data-column="90 % sparse">' in text
    group = '<th scope="colgroup" colspan="3" data-column="90 % sparse">90 % sparse</th>'
    assert group in render.html_grid(results)


def test_latex_escapes_special_characters(nasty: Table) -> None:
    text = render.latex([nasty])
    assert r"<b>50\% \& \$x\_1\$ | \textbackslash alpha\{\} \#1</b> [a] " in text


@pytest.mark.parametrize("name", ["[x]", "*x"])
def test_the_begin_of_a_latex_cell_is_no_option_of_the_line_before(
    tmp_path: Path, name: str
) -> None:
    entries = write(tmp_path, name, [88.5, 88.1])
    text = render.latex([table(tmp_path, entries, spec_of(rows=["label"]))])
    assert f"\n{{}}{name} & " in text


def test_the_terminal_shows_brackets_as_they_are(nasty: Table) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render.screen([nasty]))
    shown = console.export_text()
    assert "[a]" in shown and "88.30 ±" in shown


def test_every_row_of_every_grid_has_as_many_cells_as_heads(tmp_path: Path) -> None:
    entries = write(tmp_path, "four", [90.0, None]) + write(tmp_path, "d", [1.0], method="dense")
    claim = {
        "asks": "Four?",
        "source": "s",
        "better": {"partitions": 4},
        "than": {"method": "dense"},
    }
    spec = spec_of(rows=["label"], baseline={"method": "dense"}, claims=[claim])
    found = table(tmp_path, entries, spec)
    for grid in found.grids:
        assert all(len(row) == len(grid.head) for row in grid.body)
        assert not grid.groups or sum(width for _, width in grid.groups) == len(grid.head)


def test_a_terminal_of_80_columns_shows_every_value_whole(tmp_path: Path) -> None:
    entries = [
        entry
        for sparsity in (0.8, 0.9, 0.95)
        for name, method in (("C-GaP, own proportions", "c_gap"), ("Prune from dense", "rigl"))
        for entry in write(tmp_path, name, [87.1, 88.2, 88.0], method=method, sparsity=sparsity)
    ]
    spec = spec_of(rows=["label", "distribution", "epochs"], baseline={"method": "rigl"})
    found = table(tmp_path, entries, spec)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render.screen([found]))
    lines = console.export_text().splitlines()
    for row in texts(found):
        for text in row[3:5]:
            assert sum(text in line for line in lines) >= 3, text
    assert sum("not resolved" in line for line in lines) == 3
    ends = [line.rstrip()[-1] for line in lines if line[:1] in ("│", "┃")]
    assert ends and set(ends) <= {"│", "┃"}  # no border is cut off
    assert "detectable" not in "\n".join(line for line in lines if "│" in line or "┃" in line)

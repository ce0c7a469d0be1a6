from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gapbench.analysis.collect import runs_frame, scan
from gapbench.analysis.evaluation import evaluate
from gapbench.report import render
from gapbench.report.grids import Grid, Table, Text
from gapbench.report.tables import tables_of
from tests.report.folders import entry_of, spec_of, trial_of, write_run

DOCUMENT = r"""\documentclass{article}
%s
\let\shrink\resizebox
\def\resizebox{\typeout{SHRUNK}\shrink}
\begin{document}
%s
\end{document}
"""
ENGINES = ("pdflatex", "tectonic")


def engine() -> str | None:
    return next((path for path in map(shutil.which, ENGINES) if path), None)


needs_tex = pytest.mark.skipif(
    engine() is None, reason="no TeX: apt-get install texlive-latex-recommended, or tectonic"
)


def compiled(folder: Path, tables: list[Table]) -> str:
    """Compile tables with the packages that they name, and no others; return the log."""
    text = render.latex(tables)
    named = re.match(r"% needs (\S+)\n% and, for pdflatex, (\S+);", text)
    assert named is not None
    assert len(set(re.findall(r"\\label\{(\S+)\}", text))) == text.count(r"\caption")
    (folder / "table.tex").write_text(DOCUMENT % (named[1] + named[2], text), encoding="utf-8")
    is_pdflatex = str(engine()).endswith("pdflatex")
    options = ["-interaction=nonstopmode", "-halt-on-error"] if is_pdflatex else ["--keep-logs"]
    command = [str(engine()), *options, "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "table.log").read_text(encoding="utf-8", errors="replace")


def table_with(*names: str, columns: int = 1) -> Table:
    """Return a table of one grid: a row a name, then the value 0.5 some times."""
    body = tuple((Text(name), *[Text("0.500", 0.5)] * columns) for name in names)
    head = ("method", *["training FLOPs (× dense recipe)"] * columns)
    return Table("main", "Which?", "digits", (Grid("Cost", head, body, keys=1),))


@pytest.mark.tex
@needs_tex
def test_tables_compile_and_fit_the_page_whatever_the_values_are(tmp_path: Path) -> None:
    entries = []
    names = [r"<b>50% & $x_1$ | \alpha{} #1</b> ~^", "[x] κ – — ± × … “q” \"r\" 'naïve'"]
    names += ["½ of a Łódź, façade, ß"]
    names += ["*starred, and a long name: gradual pruning from dense, global magnitude"]
    for name in names:
        for seed in range(2):
            trial = trial_of(seed=seed, partitions=2 + names.index(name))
            entries.append(entry_of(trial, name))
            write_run(tmp_path, trial, 88.0 + seed * (1 + names.index(name)))
    entries.append(entry_of(trial_of("rigl")))
    claim = {
        "asks": "50% & more?",
        "source": "x_1 & {y}",
        "better": {"partitions": 2},
        "than": {"partitions": 3},
    }
    rows = ["label", "partitions", "distribution", "epochs", "strategy"]
    spec = spec_of(rows=rows, baseline={"partitions": 2}, claims=[claim])
    evaluation = evaluate(runs_frame(entries, scan(tmp_path)), spec)
    log = compiled(tmp_path, list(tables_of(evaluation)))
    assert (tmp_path / "table.pdf").stat().st_size > 10_000
    assert [wide for wide in re.findall(r"Overfull .hbox \((.*?)pt", log) if float(wide) > 3] == []


@pytest.mark.tex
@needs_tex
def test_only_a_table_wider_than_a_line_is_shrunk(tmp_path: Path) -> None:
    assert "SHRUNK" not in compiled(tmp_path, [table_with("C-GaP", columns=3)])
    assert "SHRUNK" in compiled(tmp_path, [table_with("C-GaP", columns=30)])


def test_what_latex_would_read_is_escaped() -> None:
    assert render.tex_escape(r"50 % & $x_1$ {#} ~ ^ \a") == (
        r"50 \% \& \$x\_1\$ \{\#\} \textasciitilde  \textasciicircum  \textbackslash a"
    )

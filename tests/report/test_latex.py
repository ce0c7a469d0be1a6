from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gapbench.report import render
from gapbench.report.cells import results_of
from gapbench.report.collect import runs_frame, scan
from gapbench.report.tables import table_of
from tests.report.folders import entry_of, spec_of, trial_of, write_run

DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""
ENGINES = ("pdflatex", "tectonic")


def engine() -> str | None:
    return next((path for path in map(shutil.which, ENGINES) if path), None)


@pytest.mark.skipif(
    engine() is None, reason="no TeX: apt-get install texlive-latex-recommended, or tectonic"
)
def test_tables_compile_whatever_the_values_are(tmp_path: Path) -> None:
    entries = []
    names = [r"<b>50% & $x_1$ | \alpha{} #1</b> ~^", "[x] κ – — ± × ≥ … “q” \"r\" 'naïve'"]
    for name in names:
        for seed in range(2):
            trial = trial_of(seed=seed, partitions=2 + names.index(name))
            entries.append(entry_of(trial, name))
            write_run(tmp_path, trial, 88.0 + seed)
    entries.append(entry_of(trial_of("rigl")))
    claim = {
        "asks": "50% & more?",
        "source": "x_1 & {y}",
        "better": {"partitions": 2},
        "than": {"partitions": 3},
    }
    spec = spec_of(rows=["label", "partitions"], baseline={"partitions": 2}, claims=[claim])
    (results,) = results_of(runs_frame(entries, scan(tmp_path)), spec)
    source = tmp_path / "table.tex"
    source.write_text(DOCUMENT % render.latex([table_of(results, spec)]), encoding="utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error"]
    command = [str(engine()), *(options if str(engine()).endswith("pdflatex") else []), "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 10_000

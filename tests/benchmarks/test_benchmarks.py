"""Every benchmark runs at a tiny size; what its figures say is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BEGIN, BENCHMARKS, END, main, marked, where
from benchmarks.rows import Row, load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def by_script(name: str, tmp_path: Path) -> list[Row]:
    file = tmp_path / "rows.json"
    words = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(file)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = load(json.loads(file.read_text()))
    for row in rows:
        assert row.what in done.stdout
        assert row.ours is not None or row.note, row.what
    return rows


def test_whole_trials_train_the_same_as_the_bare_loop(tmp_path: Path) -> None:
    epoch, control, _, whole, both = by_script("whole_trials", tmp_path)
    assert epoch.ratio is not None and control.ratio is not None
    assert whole.limit == 1.03 and both.at_least


def test_commands_run_over_planted_folders(tmp_path: Path) -> None:
    rows = by_script("suite", tmp_path)
    assert [row.limit for row in rows] == [2, 2, 2, 10, 1, 10]


def test_bytes_are_within_the_bound(tmp_path: Path) -> None:
    rows = by_script("exchange_bytes", tmp_path)
    assert {row.reference for row in rows} == {"entropy bound"}
    assert all(1 <= row.ratio < 1.1 for row in rows)


def test_all_benchmarks_make_one_table_on_a_page(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    page, file = tmp_path / "page.md", tmp_path / "rows.json"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    words = ["--quick", "--only", "exchange_bytes", "--json", str(file), "--write", str(page)]
    assert main(words) == 0
    printed, written = capsys.readouterr().out, page.read_text()
    assert printed.strip() in written
    assert written.startswith("# Before\n") and written.endswith("After.\n")
    assert "old" not in written and where().split(",")[0] in written
    assert len(json.loads(file.read_text())) == printed.count("entropy bound")


def test_a_page_without_a_region_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="no region"):
        marked(page, "")


def test_make_bench_runs_scripts_that_are_there() -> None:
    for name in BENCHMARKS:
        assert (ROOT / "benchmarks" / f"{name}.py").exists()
    assert BEGIN in (ROOT / "docs" / "performance.md").read_text()

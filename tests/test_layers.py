"""Files stay short, and the command line light. `make lint` checks which way imports point."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gapbench"
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 440


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 80, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("code", ["import gapbench", "import gapbench.__main__"])
def test_the_command_line_loads_nothing_heavy(code):
    heavy = [
        "torch",
        "pandas",
        "matplotlib",
        "seaborn",
        "scipy",
        "sacred",
        "submitit",
        "sklearn",
        "numpy",
    ]
    program = f"import sys; {code}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_what_only_looks_up_what_has_run_needs_no_torch(tmp_path):
    """Keys follow from plans, hence from models: the trials of an ablation take torch."""
    program = (
        "import sys; from gapbench.__main__ import main; main(); print('torch' in sys.modules)"
    )
    (tmp_path / "results").mkdir()
    words = ["status", "--results", "results"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert "0 trials" in done.stdout, done.stderr
    assert done.stdout.endswith("False\n")

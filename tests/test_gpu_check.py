"""What scripts/gpu_check.sh says where it cannot check anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def check(*words, **environment):
    return subprocess.run(
        ["bash", "scripts/gpu_check.sh", "--python", sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_there_is_one_line_and_exit_code_two(tmp_path):
    done = check(OUT=str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu_check: needs a CUDA GPU, and torch sees none here\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--wheels"], "--wheels needs a value"),
        (["--wheels", "nowhere"], "--wheels nowhere is not a folder"),
        (["--part", "all"], "--part all is unknown; valid: checks, precision, runs"),
        (["--fast"], "unknown argument --fast; valid: --part, --python, --wheels"),
    ],
)
def test_arguments_that_cannot_be_are_refused(words, said):
    done = check(*words)
    assert (done.returncode, done.stderr) == (2, f"gpu_check: {said}\n")


def test_a_package_that_is_missing_is_named_and_may_come_as_a_wheel(tmp_path):
    """A python that sees no packages finds what lies in the folder of wheels."""
    alone = tmp_path / "python"
    alone.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    alone.chmod(0o755)
    done = check("--python", str(alone))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "numpy cannot be imported" in done.stderr
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "numpy.py").touch()
    assert (
        "pydantic cannot be imported"
        in check("--python", str(alone), "--wheels", str(wheels)).stderr
    )


STAND_IN = """#!/bin/bash
# a Python on a machine with a GPU, as far as the script can see: it leaves what commands leave
[ "$1" = - ] && { cat > /dev/null; exit 0; }
echo "$*" >> "$CALLS"
while [ $# -gt 0 ]; do
    case "$1" in
        --page) printf '# title\\n\\n| a table |\\n' > "$2" ;;
        --results)
            mkdir -p "$2/reports/small/precision"
            printf '| a table |\\n' > "$2/reports/small/precision/table.md" ;;
    esac
    shift
done
"""


@pytest.mark.parametrize(
    ("part", "commands", "files"),
    [
        ("checks", ["pytest", "gpu_steps", "gpu_steps", "gpu_lanes"],
         ["gpu.md", "lanes.txt", "resnet20.txt", "resnet50.txt", "tests.txt"]),
        ("runs", ["forecast", "gpu_images"], ["forecast.txt", "gpu.md", "images.txt"]),
        ("precision", ["gapbench run", "gapbench report"], ["gpu.md", "precision.txt", "results"]),
    ],
)  # fmt: skip
def test_a_part_runs_its_commands_and_keeps_their_tables(tmp_path, part, commands, files):
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    given = {"OUT": str(tmp_path / "out"), "CALLS": str(tmp_path / "calls")}
    done = check("--python", str(python), "--part", part, **given)
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "calls").read_text().splitlines()
    called = [line for line in called if line.startswith("-m ")]
    assert len(called) == len(commands)
    for line, words in zip(called, commands, strict=True):
        assert words in line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert page.count("| a table |") == {"checks": 3, "runs": 2, "precision": 1}[part]

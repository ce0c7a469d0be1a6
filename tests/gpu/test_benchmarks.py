"""The benchmarks for GPUs run from their first line to their page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_steps_of_a_gpu_are_measured_in_a_process_that_has_not_used_it(gpu, tmp_path):
    page = tmp_path / "gpu.md"
    words = ["--models", "ResNet-20", "--modes", "eager", "captured", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_steps", *words, "--rounds", "2", "--page", page],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines = page.read_text(encoding="utf-8").splitlines()
    for start in ("ResNet-20, eager", "ResNet-20, captured", "ResNet-20, RigL update"):
        assert any(line.startswith(f"| {start} |") for line in lines), start

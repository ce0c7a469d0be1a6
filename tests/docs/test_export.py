"""docs/export.md: what was exported is fine-tuned in the suite, as the page says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gapbench.__main__ import main
from tests.docs.pages import blocks
from tests.runs import attempt, entry, prepared

PAGE = Path(__file__).parents[2] / "docs/export.md"


def test_an_exported_model_is_fine_tuned_by_an_ablation(tmp_path):
    folder = prepared(tmp_path / "first", entry("main", only="rigl"))
    assert attempt(folder) == "completed"
    file = tmp_path / "model.safetensors"
    words = ["export", folder.path.name, "--results", str(tmp_path / "first"), "--out", str(file)]
    assert main(words) == 0
    for block in blocks(PAGE):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    command = [sys.executable, "-P", "-m", "gapbench", "run", "tuned.yaml", "--scale", "once"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("results/runs/*/result.json")
    result, before = json.loads(path.read_text()), json.loads(folder.result.read_text())
    assert result["digest"]["masks"] == before["digest"]["masks"]  # its zeros are the same
    assert result["digest"]["weights"] != before["digest"]["weights"]

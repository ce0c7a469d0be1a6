"""A plug-in from outside the package is found, and passes for one of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gapbench.base.registry import Registry
from gapbench.errors import UserError
from gapbench.methods.method import Method, methods

PLUGIN = """
from gapbench.methods.method import method
from gapbench.plan.phases import Phase, Plan
from gapbench.plan.updates.drop_grow import DropGrow


@method("mine", label="Mine")
def mine(layers, epochs, rng, *, share: float = 0.5):
    update = DropGrow("random", alpha=share)
    return Plan((Phase(epochs, update=update, label="sparse"),), initial="random")
"""


def plant(place: Path, group: str, module: str) -> None:
    """Write a distribution that names its module `plugin` as the entry point `mine`."""
    (place / "plugin.py").write_text(module)
    info = place / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nmine = plugin\n")


def test_a_method_in_a_foreign_package_is_found_through_its_entry_point(tmp_path):
    plant(tmp_path, "gapbench.methods", PLUGIN)
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nquestion: why?\nscales: {smoke: {task: digits, epochs: 6, sparsity: 0.9}}\n"
        "trials:\n  - {method: mine, share: [0.1, 0.2], seeds: 1}\nreport: {rows: [label, share]}\n"
    )
    command = ["gapbench", "run", str(file), "--scale", "smoke", "--dry-run", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"method": "mine"') == 2


def test_a_plug_in_that_cannot_be_imported_is_named_in_one_line(tmp_path):
    plant(tmp_path, "gapbench.tasks", "import no_such_module")
    command = [sys.executable, "-m", "gapbench", "list", "tasks"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    reason = "ModuleNotFoundError: No module named 'no_such_module'"
    assert done.stderr == f"gapbench: plug-in mine = plugin cannot be imported: {reason}\n"
    assert done.returncode == 2


def test_two_owners_of_one_name_are_an_error():
    registry: Registry[Method] = Registry("method", "gapbench.methods")
    registry.register("dense")(methods["dense"])
    with pytest.raises(UserError, match="registered twice"):
        registry.register("dense")(methods["rigl"])


def test_an_unknown_name_is_answered_with_the_nearest():
    words = "unknown method 'rgil': did you mean 'rigl'.*: `gapbench list methods` lists them$"
    with pytest.raises(UserError, match=words):
        methods["rgil"]
    assert "rgil" not in methods

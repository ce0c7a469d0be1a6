"""The README's examples run as they stand there, and the commands it names exist."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import typer

from gapbench.__main__ import app
from gapbench.methods.method import methods, plan
from gapbench.plan.phases import Layer

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def block_after(mark: str) -> str:
    return README.split(f"<!-- {mark} -->")[1].split("```python\n")[1].split("```")[0]


def test_it_stays_short():
    assert len(README.splitlines()) <= 150


def test_the_three_line_example_trains_to_its_sparsity():
    names: dict = {}
    exec(block_after("example"), names)
    assert names["sparsifier"].done
    model, loss = names["model"], names["loss"]
    zeros = sum(int((model[index].weight == 0).sum()) for index in (0, 2, 4))
    assert zeros >= 0.9 * (20 * 64 + 64 * 64 + 64 * 2) - 3
    assert loss.item() < 0.6  # better than guessing between two classes


def test_the_study_example_gives_a_table(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "ablations", tmp_path / "ablations")
    shutil.copytree(ROOT / "baselines", tmp_path / "baselines")
    for path in ROOT.glob("scales*.yaml"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gapbench.study.executor_for", lambda name: ("debug", "quick"))
    names: dict = {}
    exec(block_after("study").replace("study.table  #", "table = study.table  #"), names)
    assert list(names["table"]["label"]).count("C-GaP") == 3
    assert names["table"]["mean"].notna().all()


def test_the_method_example_registers_a_method_that_works():
    exec(block_after("method"), {})
    try:
        built = plan("dense_then_sparse", (Layer("a", (4, 4)),), 10, dense_share=0.3)
        assert [segment.phase.epochs for segment in built.segments] == [3, 7]
    finally:
        methods._entries.pop("dense_then_sparse")


def test_the_table_is_that_of_the_published_trials():
    spec = importlib.util.spec_from_file_location("t", ROOT / "scripts" / "readme_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    block = README.split("<!-- results -->")[1].split("<!-- /results -->")[0].strip()
    assert block == module.block(ROOT), "run: python scripts/readme_table.py"
    assert len(block.splitlines()) > 8


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`?(ablations/\w+\.yaml)", README))))
def test_every_ablation_that_is_named_exists(path):
    assert (ROOT / path).is_file()


def test_every_command_and_option_that_is_named_exists():
    text = README + COMMANDS
    lines = re.findall(r"^(?:gapbench|python -m gapbench\.run) .*$", text, re.MULTILINE)
    named: dict[str, set[str]] = {}
    for call in (call for line in lines for call in line.partition("#")[0].split(";")):
        command = "run" if "gapbench.run" in call else call.split()[1]
        named.setdefault(command, set()).update(re.findall(r"(--[a-z-]+)", call))
    group = typer.main.get_command(app)
    assert named.keys() == group.commands.keys()
    for command, options in named.items():
        known = {
            option for parameter in group.commands[command].params for option in parameter.opts
        }
        assert options <= known, command

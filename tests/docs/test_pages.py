"""Every page of the docs can be done as it says, from an empty folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gapbench.cli.commands import KINDS
from gapbench.errors import LISTED
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, commands, play, unknown

OWN = ("slurm.md", "sparsifier.md", "tutorials/your-cluster.md")  # they have tests of their own
PLAYED = [
    page
    for page in PAGES
    if any(block.kind in ("sh", "python") and not block.needs for block in blocks(page))
    and str(page.relative_to(DOCS)) not in OWN
]


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PLAYED, ids=name)
def test_a_reader_can_do_all_that_a_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GAPBENCH_PLUGINS", raising=False)
    play(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_a_page_names_exists(page):
    assert [found for found in commands(page) if unknown(found)] == []


def test_every_command_that_the_package_names_exists():
    named = set()
    for path in (ROOT / "gapbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = (str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
            named.update(re.findall(r"`(gapbench [a-z][^`]*)`", "".join(text)))
    assert {"gapbench list Xs", "gapbench run FILE --scale X -n"} <= named
    assert [command for command in sorted(named) if unknown(command)] == []
    assert {f"{kind}s" for kind in LISTED} <= set(KINDS)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("gapbench run main --scale mini -n", ""),
        ("gapbench report --check --scales", "--scales"),
        ("gapbench expand c_gap", "expand"),
        ("gapbench new ablation mine", ""),
        ("gapbench new task mine", "task"),
    ],
)
def test_commands_that_do_not_exist_are_found(command, found):
    assert unknown(command) == found

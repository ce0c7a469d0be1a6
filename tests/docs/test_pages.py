"""Every page of the docs can be done as it says, from an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, blocks, commands, play, unknown

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

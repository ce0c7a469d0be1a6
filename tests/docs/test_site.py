"""The site builds without a warning or a network, and its reference has all that there is."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest
import typer

import gapbench
from gapbench.__main__ import app
from gapbench.spec.schema import AblationSpec, Claim, Report, Row
from tests.docs.pages import DOCS, PAGES, ROOT


def test_the_drawings_are_those_of_the_plans():
    spec = importlib.util.spec_from_file_location("drawn", ROOT / "scripts" / "plan_drawings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for file, content in module.drawings().items():
        told = "run: python scripts/plan_drawings.py"
        assert (DOCS / "drawings" / file).read_text(encoding="utf-8") == content, told
        assert content.count("<rect") > 50


BUILD = """
import socket, sys
def refused(*_): raise OSError("the build of the site needs no network")
socket.socket.connect = socket.getaddrinfo = refused
from mkdocs.__main__ import cli
cli(["build", "--strict", "--site-dir", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_pages_of_the_site_fetch_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]+src=[^>]+|<link[^>]+href=[^>]+", text)
        assert len(fetched) > 2
        assert [tag for tag in fetched if re.search(r"=\"?(https?:)?//", tag)] == [], page


@pytest.mark.slow
def test_the_reference_has_all_that_there_is(site):
    def text(page: str) -> str:
        return (site / "reference" / f"{page}.html").read_text(encoding="utf-8")

    python = text("python")
    public = set(gapbench.__all__) - {"__version__"}
    assert [name for name in public if f'id="gapbench.{name}"' not in python] == []
    group, shown = typer.main.get_command(app), text("commands")
    for name, command in group.commands.items():
        assert f"gapbench {name}" in shown
        for parameter in getattr(command, "params", ()):
            assert all(f"<code>{option}</code>" in shown for option in parameter.opts), name
    keys = text("ablation-files")
    for model in (AblationSpec, Row, Claim, Report):
        names = set(model.model_fields) - {"options"}
        assert [name for name in names if f"<code>{name}</code>" not in keys] == []

"""Pages of the docs as programs: what a reader would do, from an empty folder.

A block with a title is a file that the reader writes, a block `sh` is typed into a shell, and a
block `python` without a title into one Python session. KEY is the key of a trial that is there. A
line before a block says what it needs that no test machine has; of such a block only the commands
and their options are looked up:

    <!-- needs: a GPU -->
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from gapbench.__main__ import app
from tests.docs import warm

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

_BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>.+) -->\n)?"
    r'^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        file: the name of the file that it is; "" for none.
        needs: what no test machine has; "" for nothing.
    """

    kind: str
    text: str
    file: str
    needs: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["kind"], m["text"], m["file"] or "", m["needs"] or "") for m in found]


def play(page: Path, folder: Path, env: Mapping[str, str] = os.environ) -> None:
    """Do in an empty folder what a page says."""
    names: dict[str, Any] = {}
    key = "KEY"
    for block in blocks(page):
        known = sorted(
            (folder / "results" / "runs").glob("*"), key=lambda path: path.stat().st_mtime
        )
        key = known[0].name if known else key
        text = re.sub(r"\bKEY\b", key, block.text)
        if block.needs:
            continue
        if block.file:
            (folder / block.file).write_text(text, encoding="utf-8")
        elif block.kind == "sh":
            shell(text, folder, env)
        elif block.kind == "python":
            exec(compile(text, page.name, "exec"), names)


@functools.cache
def programs() -> str:
    """Return the value of PATH for this environment's programs; `gapbench` is a warm process's."""
    place = tempfile.mkdtemp()
    socket, program = f"{place}/socket", Path(place, "gapbench")
    words = [sys.executable, "-IS", str(Path(warm.__file__)), socket]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", warm.__name__, socket],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
    )

    assert server.stdin is not None
    atexit.register(server.stdin.close)  # ends the process, which removes the folder
    deadline = time.monotonic() + 120
    while not os.path.exists(socket):
        assert server.poll() is None, f"the warm process could not begin at {socket}"
        assert time.monotonic() < deadline, "the warm process takes too long to begin"
        time.sleep(0.05)
    return f"{place}:{os.path.dirname(sys.executable)}"


def shell(lines: str, folder: Path, env: Mapping[str, str] = os.environ) -> None:
    """Run lines in a shell that finds this environment's programs."""
    with tempfile.TemporaryFile("w+") as said:  # a pipe would wait for what runs on behind it
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            cwd=folder,
            env={**env, "PATH": f"{programs()}:{env['PATH']}", "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        said.seek(0)
        assert done.returncode == 0, f"{lines}\n{said.read()}"


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of this package that a page names, in blocks and in its sentences."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line for block in blocks(page) if block.kind == "sh" for line in block.text.split("\n")
    ]
    inline = re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    for line in (*lines, *inline):
        for words in re.split(r"[;|&>]|\s#", line.replace("$(", "").replace(")", "")):
            if re.match(r"\s*(gapbench |python -m gapbench\.run )", words):
                yield words.strip()


def unknown(command: str) -> str:
    """Return what of a command this package does not have; "" if all is there."""
    words = shlex.split(command.replace("python -m gapbench.run", "gapbench run"))[1:]
    known: Any = typer.main.get_command(app)
    while words and hasattr(known, "commands"):
        if words[0] not in known.commands:
            return words[0]
        known = known.commands[words.pop(0)]
    options = {option for parameter in getattr(known, "params", ()) for option in parameter.opts}
    given = (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word))
    return next((word for word in given if word not in options), "")

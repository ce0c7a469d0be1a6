"""What reaches the terminal, and what happens where it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from gapbench.__main__ import main
from gapbench.base.documents import write_json
from gapbench.cli.terminal import clean
from gapbench.runs.store import RunFolder
from tests.runs import ABLATIONS, entry, prepared

pytestmark = pytest.mark.slow

UNSAFE = ["\x1b]0;title\x07", "\x1b[2J", "\r", "\x08", "\x9b31m", "\u202e", "\u2066", "\x00",
          "\u2028"]  # fmt: skip
RUN = ["run", str(ABLATIONS / "partitions.yaml"), "--scale", "smoke", "--seeds", "1",
       "--only", "partitions=2", "--executor", "debug"]  # fmt: skip


@pytest.mark.parametrize("text", UNSAFE)
def test_control_characters_are_shown_and_not_obeyed(text):
    cleaned = clean(f"a{text}b")
    assert cleaned.isprintable() and cleaned.startswith("a\\") and cleaned.endswith("b")


def test_text_of_any_script_its_lines_and_tabs_stay():
    text = "κ 稀疏\té\n😀 –\n"
    assert clean(text) == text
    assert clean("a\r\nb\ud800") == "a\nb\\ud800"


@pytest.mark.parametrize("text", UNSAFE)
def test_no_command_passes_on_what_others_have_written(tmp_path, capsys, text):
    folder = prepared(tmp_path, entry(only="dense"))
    folder.log.write_text(f"log {text}\n")
    folder.error.write_text(f"error {text}\n")
    status = {"state": "failed", "attempt": 1, "error": f"because {text}", "phase": f"p{text}",
              "metric": {f"val/{text}": 1.0}, "epochs": 2, "epoch": 1.0}  # fmt: skip
    write_json(folder.status, status)
    other = RunFolder(tmp_path / "runs" / f"{folder.path.name[:4]}{text.replace(chr(0), '')}x")
    other.prepare({"task": text, "method": f"{text}m", "options": {text: text}})
    for words in (["status"], ["show", folder.path.name], ["show", folder.path.name[:4]],
                  ["logs", folder.path.name], ["cancel"], ["report", RUN[1]]):  # fmt: skip
        main([*words, "--results", str(tmp_path)])
        captured = capsys.readouterr()
        for line in (captured.out + captured.err).split("\n"):
            assert line.replace("\t", "").isprintable(), (words, line)


def command(*words, **options):
    return subprocess.run([sys.executable, "-m", "gapbench", *words], text=True, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_is_not_utf_8_loses_no_trial(tmp_path, encoding):
    env = {
        **os.environ,
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "PYTHONWARNINGS": "ignore",
    }  # of a library's import
    done = command(*RUN, "--results", str(tmp_path), env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "\\u03ba" in done.stdout or "report: " in done.stdout
    assert done.stderr == ""


def test_a_full_output_is_told_and_costs_no_trial(tmp_path):
    with open("/dev/full", "w") as full:
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}
        done = command(
            *RUN, "--results", str(tmp_path), env=env, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == "gapbench: not all could be printed: No space left on device\n"
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunFolder(folder).completed()


def test_a_closed_output_is_refused_in_one_line():
    script = f"exec {sys.executable} -m gapbench list methods >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gapbench: standard output is closed")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    script = f"{sys.executable} -m gapbench schema | head -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("words", [["doctor"], ["list", "tasks"], [*RUN, "--dry-run"]])
def test_a_user_without_a_name_and_a_home_is_served(tmp_path, words):
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    nobody = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    done = subprocess.run(
        [*nobody, sys.executable, "-m", "gapbench", *words],
        env=kept,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1), done.stderr


def test_json_stays_json_whatever_it_holds(tmp_path, capsys):
    folder = prepared(tmp_path, entry(only="dense"))
    write_json(folder.status, {"state": "failed", "error": "a\x1b[2J\u202e"})
    assert main(["show", folder.path.name, "--json", "--results", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["error"] == "a\x1b[2J\u202e"

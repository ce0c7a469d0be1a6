"""Command lines with values of every kind: each ends well, or says in one line what is wrong."""

from __future__ import annotations

import random
import signal

import pytest

from gapbench.__main__ import main
from tests.spec.test_mutants import place as place  # the shipped files, to work in

pytestmark = pytest.mark.slow

SECONDS = 30
COUNT = 100
WORDS = (
    *("", "-1", "0", "1", "1e309", "nan", "9" * 400, "x", "a=b", "=", "epochs=", "epochs=1e9"),
    *("recipe.lr=nan", "recipe.lr=!!int ''", "*", "[", "%j", "../..", "/dev/null/x", "\ud800"),
    *("\r", "\x1b[2J", "é" * 300, "x" * 5000, "0-4", "4-0", "0,,1", "--", "~", "folder", "zero"),
    *("ablations/main.yaml", "smoke", "task_options.x=1", "method=rigl", "c_gap,rigl"),
)
OPTIONS = {
    "run": ("--scale", "--only", "--set", "--seeds", "--jobs", "--results", "--executor"),
    "report": ("--scale", "--only", "--set", "--seeds", "--results"),
    "status": ("--scale", "--only", "--set", "--seeds", "--results"),
    "cancel": ("--scale", "--only", "--results"),
    "prepare": ("--scale", "--only", "--data"),
    "show": ("--results",),
    "logs": ("--results",),
    "export": ("--format", "--out", "--results"),
    "reproduce": ("--results", "--executor"),
    "claims": ("--results",),
    "list": (),
}


def line(rng: random.Random) -> list[str]:
    command = rng.choice(list(OPTIONS))
    words = [command] if command == "claims" else [command, rng.choice(WORDS)]
    if command in ("run", "report", "prepare", "status") and rng.random() < 0.7:
        words[1] = "ablations/strategy.yaml"
    for option in rng.sample(OPTIONS[command], rng.randrange(min(3, len(OPTIONS[command]) + 1))):
        words += [option, rng.choice(WORDS)]
    return [*words, "--dry-run"] if command == "run" else words


def test_a_command_line_of_any_kind_ends_well(place, capsys):
    (place / "folder").mkdir()
    (place / "zero").symlink_to("/dev/zero")

    def late(number, frame):
        raise KeyboardInterrupt

    rng = random.Random(20261127)
    before = signal.signal(signal.SIGALRM, late)
    refused = 0
    try:
        for _ in range(COUNT):
            words = line(rng)
            signal.alarm(SECONDS)
            code = main(words)
            signal.alarm(0)
            errors = [e for e in capsys.readouterr().err.splitlines() if e.startswith("gapbench: ")]
            assert code in (0, 1) or (code == 2 and len(errors) == 1), (words, code, errors)
            refused += code == 2
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert refused > COUNT / 4

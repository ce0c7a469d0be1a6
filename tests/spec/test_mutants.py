"""Ablation files with mistakes of every kind: a dry run accepts them or says what is wrong."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gapbench.__main__ import main
from tests.runs import ABLATIONS

pytestmark = pytest.mark.slow

SECONDS = 10
COUNT = 200
SOURCES = sorted(ABLATIONS.glob("*.yaml"))

# texts that stand in the place of a value, as YAML
VALUES = (
    *("null", "true", "-1", "0", "1.5", ".nan", "-.inf", "1e309", "9" * 400, "1000000000", '""'),
    *("[]", "[null]", "{}", "{a: {b: c}}", "[[1, 2], [3]]", "2026-01-01", "0x1F", "1_000", "~"),
    *('"\\uD800"', '"a\\rb"', '"\\e[2J"', '"\\0"', f'"{"x" * 300}"', "!!int ''", "!!bool maybe"),
    *("!!python/object:os.system x", "!!binary '='", "!!set {a, b}", "*nowhere", "&a [*a]", "<<"),
    *("word", "../../outside", "%j", "[1, 1]", "[0, 4294967296]", "{<<: 3}", "|\n  two\n  lines\n"),
)
BOMB = "\n".join(
    ["x0: &x0 [a, a, a, a, a, a, a, a]"]
    + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]" for n in range(1, 12)]
)


def mutant(text: str, rng: random.Random) -> bytes:
    """Return a file with one or two mistakes."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 1, 2))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(12)
        key, colon, value = lines[at].partition(":")
        if kind <= 4 and colon:
            lines[at] = f"{key}: {rng.choice(VALUES)}"
        elif kind == 5 and colon:
            lines[at] = f"{key}{rng.choice(('x', '.y', '$', ' z', '[0]'))}:{value}"
        elif kind == 6:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 7:
            del lines[at : at + rng.choice((1, 1, 3))]
            lines = lines or [""]
        elif kind == 8:
            lines[at] = " " * rng.randrange(6) + lines[at].lstrip()
        elif kind == 9:
            lines = lines[: at + 1]
        elif kind == 10:
            lines.append(rng.choice((BOMB, "a: " + "[" * 500 + "]" * 500, "? [b]\n: c", "1: 2")))
        else:
            content = bytearray("\n".join(lines).encode())
            for _ in range(3):
                content[rng.randrange(len(content))] = rng.randrange(256)
            lines = content.decode("latin-1").splitlines() or [""]
    return "\n".join(lines).encode()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the shipped scales, in which files are named as the shipped ones are."""
    for scales in ABLATIONS.parent.glob("scales*.yaml"):
        (tmp_path / scales.name).write_text(scales.read_text())
    for folder in ("ablations", "baselines"):
        (tmp_path / folder).mkdir()
        for file in (ABLATIONS.parent / folder).glob("*.yaml"):
            (tmp_path / folder / file.name).write_text(file.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(file: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Make a dry run of a file, and check how it ends."""

    def late(number, frame):
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        code = main(["run", str(file), "--scale", "smoke", "--dry-run"])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    told = capsys.readouterr()
    assert code in (0, 2)
    lines = told.err.splitlines()
    assert code == 0 or (len(lines) == 1 and lines[0].startswith("gapbench: "))
    assert code == 0 or file.name in lines[0] or "ablations" in lines[0] or "scales" in lines[0]
    return code


def test_a_dry_run_of_a_file_with_mistakes_ends_well(place, capsys):
    rng = random.Random(20261126)
    codes = []
    for number in range(COUNT):
        source = rng.choice(SOURCES)
        file = place / "ablations" / source.name
        content = mutant(source.read_text(), rng)
        file.write_bytes(content)
        try:
            codes.append(tried(file, capsys))
        except BaseException:
            print(f"mutant {number} of {source.name}:\n{content!r}")
            raise
        file.write_bytes(source.read_bytes())
    assert codes.count(2) > COUNT / 4  # most are mistakes


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("seeds: 10001", "give at most 10,000 seeds"),
        ("seeds: [4294967296]", "give 4294967295 or less"),
        ("epochs: 100001", "give 100000 or less"),
        ("sparsity: " + str([n / 20000 for n in range(10001)]), "10,001 combinations"),
        ("recipe: {nesterov: true, momentum: 0.0}", "needs a momentum above 0"),
        ("every: 1000001", "give at most 1,000,000"),
        ('label: "a\\rb"', "cannot be printed"),
        ('label: "a\\nb"', "give one line"),
        ("label: " + "x" * 201, "give at most 200 characters"),
    ],
)  # fmt: skip
def test_what_is_too_much_is_said_before_it_is_made(place, capsys, line, told):
    file = place / "mine.yaml"
    file.write_text(
        "name: mine\nquestion: why?\nscales: {smoke: {task: digits, epochs: 6, sparsity: 0.9}}\n"
        f"trials:\n  - method: rigl\n    {line}\n"
    )
    assert main(["run", str(file), "--scale", "smoke", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "mine.yaml:" in error and told in error


def test_a_file_without_an_end_is_too_large(capsys):
    assert main(["run", "/dev/zero", "--dry-run"]) == 2
    assert "/dev/zero: is too large" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", ["4294967296", "0-4294967296", "4294967295,4294967296"])
def test_seeds_of_the_command_have_the_limits_of_the_file(capsys, seeds):
    assert main(["run", str(SOURCES[0]), "--seeds", seeds, "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith("gapbench: --seeds: ")


def test_an_option_without_a_value_is_refused(capsys):
    assert main(["run", str(SOURCES[0]), "--set", "epochs=", "--dry-run"]) == 2
    assert "--set: epochs has no value" in capsys.readouterr().err


def test_the_shipped_files_are_what_mutants_are_made_of():
    for file in SOURCES:
        assert isinstance(YAML(typ="safe", pure=True).load(file.read_text()), dict)

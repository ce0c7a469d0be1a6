"""Run folders that somebody else has written, or a disk has damaged: told in a line, and left."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from contextlib import contextmanager

import pytest

from gapbench.__main__ import main
from gapbench.base.documents import write_json
from gapbench.runs import leases
from gapbench.runs.store import RunFolder, _PathOf
from tests.damage import damage, damages
from tests.report.folders import history_of, result_of
from tests.runs import ABLATIONS, entry, prepared

pytestmark = pytest.mark.slow

SECONDS = 10
SECRET = "a secret of somebody else"
FILES = sorted(_PathOf.known)


@contextmanager
def no_longer_than(seconds):
    def late(number, frame):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A completed trial's folder in which every file is there, as different moments leave them."""
    chosen = entry("partitions", only="partitions=2")
    folder = prepared(tmp_path_factory.mktemp("whole"), chosen)
    write_json(folder.result, result_of(chosen.trial, 88.0))
    lines = history_of(chosen.trial, 88.0)
    folder.history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    status = {"state": "running", "attempt": 1, "epoch": 2.5, "epochs": 4, "phase": "fine-tune",
              "metric": {"val/accuracy": 80.0}, "density": 0.1, "seconds_left": 12.5,
              "error": None, "legs": 0, **leases.this_process()}  # fmt: skip
    write_json(folder.status, status)
    write_json(folder.owner, {"token": "1", **leases.this_process(), "host": "elsewhere"})
    claim = {"submission": "20260101-000000-abcdef", "index": 0, "attempts": 0, "at": time.time()}
    write_json(folder.submitted, claim | leases.this_process())
    write_json(folder.exchange, {"branches": [{"part": 0, "branch": 0, "sent": 1, "dense": 2}]})
    for path in (folder.log, folder.error):
        path.write_text("a line\n")
    for path in (folder.sacred, folder.rounds, folder.jobs):
        path.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path):
    """What links lead to, and what must not change."""
    place = tmp_path / "outside"
    (place / "tree" / "0" / "0").mkdir(parents=True)
    (place / "secret").write_text(SECRET)
    (place / "tree" / "0" / "keep").write_text(SECRET)
    (place / "tree" / ".bashrc").write_text(SECRET)
    before = contents(place)
    yield place
    assert contents(place) == before


def contents(place):
    found = {}
    for path in sorted(place.rglob("*")):
        told = path.lstat()
        found[str(path)] = (told.st_size, told.st_mtime_ns, told.st_mode)
    return found


def told_well(code, captured, allowed=(0, 1, 2)):
    """Check that a command ended as commands do: no line too many, and no secret told."""
    lines = captured.err.splitlines()
    assert code in allowed and len(lines) <= 1, (code, captured.err)
    assert code != 2 or lines[0].startswith("gapbench: ")
    assert SECRET not in captured.out + captured.err
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.parametrize("name", FILES)
def test_commands_survive_whatever_is_in_the_place_of_a_file(
    whole, outside, tmp_path, capsys, monkeypatch, name
):
    signalled = []
    monkeypatch.setattr(os, "kill", lambda *args: signalled.append(args))
    rng = random.Random(name)
    for kind, how in damages(outside).items():
        for _ in range(2 if kind in ("flipped", "types", "values") else 1):
            results = tmp_path / "results"
            folder = RunFolder(results / "runs" / whole.path.name)
            shutil.copytree(whole.path, folder.path)
            if rng.random() < 0.5:
                folder.result.unlink()  # so that the trial is not completed
            damage(folder.path / name, how, rng)
            for command in ("show", "logs", "cancel", "export", "status"):
                words = [] if command == "status" else [folder.path.name]
                words += ["--out", str(tmp_path / "model")] if command == "export" else []
                with no_longer_than(SECONDS):
                    code = main([command, *words, "--results", str(results)])
                told_well(code, capsys.readouterr())
            shutil.rmtree(results)
    assert not signalled


def test_a_report_is_made_of_what_is_whole(whole, outside, tmp_path, capsys):
    """One results folder in which every trial but one has a damaged file."""
    results, rng = tmp_path / "results", random.Random(1)
    chosen = entry("partitions", only="partitions=2").trial
    kinds = [(name, how) for name in FILES for how in damages(outside).values()]
    for seed, (name, how) in enumerate(kinds, chosen.seed + 1):
        trial = chosen.model_copy(update={"seed": seed})
        folder = RunFolder(results / "runs" / trial.key)
        shutil.copytree(whole.path, folder.path)
        folder.trial.unlink()
        folder.prepare(trial.document())
        write_json(folder.result, result_of(trial, 88.0))
        damage(folder.path / name, how, rng)
    good = RunFolder(results / "runs" / whole.path.name)
    shutil.copytree(whole.path, good.path)
    for command in (["status"], ["report", str(ABLATIONS / "partitions.yaml"), "--scale", "smoke"]):
        with no_longer_than(6 * SECONDS):
            code = main([*command, "--results", str(results)])
        captured = capsys.readouterr()
        told_well(code, captured, allowed=(0,))
    assert good.completed()
    runs = (results / "reports" / "smoke" / "partitions" / "runs.csv").read_text()
    assert f"\n{good.path.name},completed," in runs


RUN_KINDS = ("absent", "cut", "types", "link", "link to a folder", "pipe", "folder")


@pytest.mark.parametrize("name", FILES)
def test_a_run_beside_damage_trains_or_refuses_in_a_line(whole, outside, tmp_path, capsys, name):
    rng = random.Random(name)
    for kind in rng.sample(RUN_KINDS, 1):
        results = tmp_path / "results"
        folder = RunFolder(results / "runs" / whole.path.name)
        shutil.copytree(whole.path, folder.path)
        for path in (folder.result, folder.owner, folder.submitted):  # nobody is at it
            path.unlink()
        damage(folder.path / name, damages(outside)[kind], rng)
        words = ["run", str(ABLATIONS / "partitions.yaml"), "--scale", "smoke", "--seeds", "1",
                 "--only", "partitions=2", "--executor", "debug"]  # fmt: skip
        with no_longer_than(6 * SECONDS):
            code = main([*words, "--results", str(results)])
        told_well(code, capsys.readouterr())
        assert folder.completed() == (code == 0)
        shutil.rmtree(results)

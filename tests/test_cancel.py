"""Whom `gapbench cancel` signals: tried in a namespace of processes, where a fault kills nobody."""

from __future__ import annotations

import subprocess
import sys

from gapbench.runs.store import RunFolder

NAMESPACE = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")

FOREIGN = """
import json, os, signal, subprocess, sys
from pathlib import Path
from gapbench.__main__ import main
from gapbench.base.documents import write_json
from gapbench.runs import leases

results = Path(sys.argv[1])
me, bystander = leases.this_process(), subprocess.Popen(["sleep", "60"], start_new_session=True)
began = leases._process_start(bystander.pid)
others = [
    {"pid": -1}, {"pid": -1, "began": None}, {"pid": 0}, {"pid": 1}, {"pid": -bystander.pid},
    {"pid": bystander.pid}, {"pid": bystander.pid, "began": "12345"},
    {"pid": bystander.pid, "began": began}, {"pid": True, "began": began},
    {"pid": 2**31 + bystander.pid, "began": began}, {"pid": str(bystander.pid), "began": began},
]
caught = []
signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
bare = {name: value for name, value in me.items() if name not in ("pid", "began")}
for number, other in enumerate(others):
    folder = results / "runs" / f"{number:016x}"
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text("{}")
    mark = {"token": "t", **bare, **other}
    if number % 2:
        write_json(folder / "owner.json", mark)
    else:
        (folder / "owner.json").write_text(json.dumps(mark))
    write_json(folder / "status.json", {"state": "running"})
assert main(["cancel", "--results", str(results)]) == 0
assert bystander.poll() is None and not caught, (bystander.poll(), caught)
bystander.kill()
"""

OWN = """
import signal, sys, time
from pathlib import Path
from gapbench.runs.store import RunFolder

caught = []
signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
with RunFolder(Path(sys.argv[1])).owned():
    print("owned", flush=True)
    for _ in range(300):
        time.sleep(0.05)
        if caught:
            sys.exit(7)
"""


def inside(program, *words, **options):
    """Start a Python program in a namespace of processes of its own."""
    return subprocess.Popen([*NAMESPACE, sys.executable, "-c", program, *words], **options)


def test_cancel_signals_nobody_for_marks_that_others_have_written(results):
    assert inside(FOREIGN, str(results)).wait(timeout=60) == 0


def test_cancel_tells_the_process_that_owns_the_trial(results):
    folder = results / "runs" / ("0" * 16)
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text("{}")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "owned\n"
    told = subprocess.run(
        [sys.executable, "-m", "gapbench", "cancel", "--results", str(results)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout == f"asked to stop: {folder.name}\n"
    assert owner.wait(timeout=30) == 7


def test_a_process_of_another_namespace_is_not_taken_for_dead(tmp_path):
    """Containers often share a host's name; a process id means another process in each."""
    folder = RunFolder(tmp_path)
    other = inside(OWN, str(tmp_path), stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "owned\n"
    assert folder.state() == "running"
    assert not folder.terminate_owner()
    other.kill()
    other.wait()

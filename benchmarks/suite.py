"""How long the commands take over two thousand trials, from their start to the last line printed.

    python -m benchmarks.suite [--quick] [--json FILE]

Run folders are written by what writes them in a run: one small trial is trained, and its result and
history are given, with other keys, seeds and values, to every trial of an ablation. The commands
run as processes of their own, as in a shell, and write to a file. Plans and `status` are run twice;
a report once, since a second one finds its figures drawn. They are shares of no other program's
time, so there is no control row.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.rows import Row, main
from gapbench.execution.sacred_run import run_attempt
from gapbench.launch.queue import usable
from gapbench.runs.store import RunFolder
from gapbench.spec.grid import Entry
from gapbench.spec.selection import expanded
from gapbench.training.history import History

DRY_RUN_SECONDS, STATUS_SECONDS, REPORT_SECONDS, SUBMIT_SECONDS = 2.0, 2.0, 10.0, 10.0
REPORT_GIGABYTES = 1.0
SPARSITIES = tuple(round(0.5 + at / 40, 3) for at in range(20))
CONFIGURATIONS = 20  # at each sparsity; with 5 seeds, 2,000 trials
ABLATION = """\
name: many
question: How long do commands take over many trials?
scales:
  mini:
    task: fashion_mnist
    seeds: {seeds}
    epochs: 32
    distribution: [uniform, erk]
    sparsity: {sparsity}
    methods:
      c_gap: {{step_epochs: 2, steps: 8, step_lr: constant}}
trials:
  - {{method: c_gap, partitions: [3, 4, 6, 8], restart: [true, false]}}
  - {{method: [rigl, static]}}
report:
  rows: [label, partitions, restart, distribution]
  columns: sparsity
  value: test/accuracy
  baseline: {{method: rigl, distribution: uniform}}
  figures: [accuracy_vs_sparsity, accuracy_vs_flops, coverage, layer_density]
"""
# trained once, for a result and a history as long as those of scale mini
PATTERN = """\
name: pattern
question: What does a run folder hold?
scales:
  mini: {task: digits, seeds: 1, epochs: 32, sparsity: 0.9}
trials:
  - {method: c_gap, step_epochs: 2, steps: 8}
"""


def rows(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    seeds, rounds, sparsities = (1, 1, SPARSITIES[-1:]) if quick else (5, 2, SPARSITIES)
    count = CONFIGURATIONS * len(sparsities) * seeds
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        file, results = place / "many.yaml", place / "results"
        file.write_text(ABLATION.format(seeds=seeds, sparsity=list(sparsities)), encoding="utf-8")
        entries = expanded(file, "mini", (), (), None)[2]
        if len(entries) != count:
            raise AssertionError(f"{len(entries)} trials, not {count}")
        planned = [_seconds(["run", str(file), "--dry-run"]) for _ in range(rounds)]
        plain = [_seconds(["run", str(file), "--dry-run", "--json"]) for _ in range(rounds)]
        plant(results, entries, pattern(place))
        os.sync()  # or the commands share the disk with what was planted
        where = ["--results", str(results)]
        states = [_seconds(["status", *where]) for _ in range(rounds)]
        # the first report draws its figures; one of the same runs again finds them drawn
        reports = [_seconds(["report", str(file), *where])]
    return [
        _row(f"plan {count} trials (run --dry-run)", planned, DRY_RUN_SECONDS),
        _row(f"the same as JSON (--json), {count} trials", plain, DRY_RUN_SECONDS),
        _row(f"status over {count} run folders", states, STATUS_SECONDS),
        _row(f"report over {count} run folders, four figures, page", reports, REPORT_SECONDS),
        Row(
            f"memory of that report's largest process, {count} run folders",
            max(size for _, size in reports),
            "GB",
            limit=REPORT_GIGABYTES,
        ),
        submission(20 if quick else 500),
    ]


def pattern(place: Path) -> RunFolder:
    """Train one small trial to its end and return its folder."""
    file = place / "pattern.yaml"
    file.write_text(PATTERN, encoding="utf-8")
    trial = expanded(file, "mini", (), (), None)[2][0].trial
    folder = RunFolder(place / "pattern" / "runs" / trial.key)
    folder.prepare(trial.document())
    state = run_attempt(folder.path, "pattern", stop=lambda: False)
    if state != "completed":
        raise RuntimeError(f"the pattern of the run folders has {state}")
    return folder


def plant(results: Path, entries: Sequence[Entry], like: RunFolder) -> None:
    """Write a run folder for every trial, nine of ten completed, by what writes them in a run."""
    result: dict[str, Any] = json.loads(like.result.read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in like.history.read_text(encoding="utf-8").splitlines()]
    beat = json.loads(like.status.read_text(encoding="utf-8"))
    rng = random.Random(0)
    with mock.patch("os.fsync"):  # these folders need not outlive a loss of power
        for number, entry in enumerate(entries):
            trial = entry.trial
            folder = RunFolder(results / "runs" / trial.key)
            folder.prepare(trial.document())
            if number % 30 == 9:
                continue  # planned
            folder.begin_attempt()
            folder.beat(**{name: beat[name] for name in ("epoch", "epochs", "phase", "metric")})
            history = History(folder.history)
            for line in lines:
                history.append(line)
            history.sync()
            history.close()
            if number % 10 == 9:
                failed = number % 30 == 19
                folder.end_attempt("failed" if failed else "interrupted")
                continue
            metrics = {name: rng.gauss(value, 0.3) for name, value in result["metrics"].items()}
            folder.complete({**result, "key": trial.key, "seed": trial.seed, "metrics": metrics})
            folder.end_attempt("completed")


def submission(count: int) -> Row:
    """Return how long it takes to hand `count` trials to SLURM; they are cancelled at once."""
    what = f"submit {count} trials to SLURM (run --detach)"
    cluster, why = usable()
    if not cluster:
        return Row(what, None, "s", limit=SUBMIT_SECONDS, note=f"no SLURM here: {why}")
    with tempfile.TemporaryDirectory(dir=".") as name:  # nodes see this folder, not /tmp
        place = Path(name).resolve()
        file, where = place / "jobs.yaml", ["--results", str(place / "results")]
        many = PATTERN.replace("seeds: 1", f"seeds: {count}").replace("pattern", "jobs")
        file.write_text(many, encoding="utf-8")
        taken = _seconds(["run", str(file), "--executor", "slurm", "--detach", *where])
        _seconds(["cancel", *where])
        return _row(what, [taken], SUBMIT_SECONDS)


def _row(what: str, taken: Sequence[tuple[float, float]], limit: float) -> Row:
    seconds = [one for one, _ in taken]
    note = f"{min(seconds):.1f} to {max(seconds):.1f} s" if len(seconds) > 1 else ""
    return Row(what, statistics.median(seconds), "s", limit=limit, note=note)


def _seconds(words: Sequence[str]) -> tuple[float, float]:
    """Run a command of gapbench; return its seconds, and the most memory it had, in gigabytes."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "gapbench", *words], stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            told = output.read().decode(errors="replace")[-500:]
            raise RuntimeError(f"gapbench {' '.join(words)} failed: {told}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main(__doc__, rows)

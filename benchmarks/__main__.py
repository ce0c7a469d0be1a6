"""All benchmarks of speed as one table: ours, what it is compared with, the limit, and a verdict.

    python -m benchmarks [--quick] [--json FILE] [--write docs/performance.md]

`make bench` runs it. Each benchmark has a process of its own, one after the other. With `--write`
the table, the machine, the date and the command go into the marked region of a page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.rows import Row, dump, load, table

BENCHMARKS = (
    "step_overhead", "mask_change", "whole_trials", "suite", "exchange_bytes", "sparse_inference",
)  # fmt: skip
BEGIN, END = "<!-- bench: `make bench` writes what follows -->", "<!-- /bench -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything and return 0, or 1 if a benchmark itself failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_first_line())
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the scripts")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--write", type=Path, help="page whose marked region gets the table")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    given = parser.parse_args(arguments)
    if given.write:
        marked(given.write, "")  # refuse before the minutes, not after them
    began, found = time.perf_counter(), []
    for name in given.only:
        found += measured(name, given.quick)
    seconds = time.perf_counter() - began
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(dump(found), indent=1) + "\n", encoding="utf-8")
    if given.write:
        words = ["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)]
        text = f"{where()}; `{' '.join(words)}`, {seconds / 60:.0f} minutes.\n\n{table(found)}"
        given.write.write_text(marked(given.write, text), encoding="utf-8")
    return int(any(row.note.startswith("failed") for row in found))


def _first_line() -> str:
    return (__doc__ or "").split("\n", 1)[0]


def measured(name: str, quick: bool) -> list[Row]:
    """Run one benchmark in a process of its own and return its rows, or one that says it failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        words = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", "--json", str(file)]
        began = time.perf_counter()
        done = subprocess.run(
            [*words, *(["--quick"] if quick else [])], capture_output=True, text=True
        )
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        if done.returncode or not file.exists():
            print(done.stderr, file=sys.stderr)
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return [Row(name, None, "", note=f"failed: {last}")]
        return load(json.loads(file.read_text(encoding="utf-8")))


def where() -> str:
    """Return what the figures depend on: processor, cores, memory, date, versions."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return (
        f"{processor()}, {cores} cores, {gigabytes:.0f} GB, {time.strftime('%Y-%m-%d')}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def processor() -> str:
    """Return the processor's model as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def marked(page: Path, text: str) -> str:
    """Return the page with `text` between its marks.

    Raises:
        SystemExit: if it has none.
    """
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page}: it has no region between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())

"""What one mask change takes beyond the memory that training holds anyway."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from benchmarks.events import Subject
from benchmarks.step_overhead import one_thread

# freed memory goes back to the system at once, so that none lies ready when the change begins
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def peaks(size: str, events: Sequence[str]) -> dict[str, float | None]:
    """Return bytes a weight: the highest resident memory in an event minus that before it.

    A process of its own does each event twice, since the first time pays for what is set up once.
    None where the system (not Linux) does not say.
    """
    if not Path("/proc/self/clear_refs").exists():
        return dict.fromkeys(events)
    with mock.patch.dict(os.environ, ALLOCATOR):
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            found = pool.apply(_peaks, (size, events))
    return dict(zip(events, found, strict=True))


def _peaks(size: str, events: Sequence[str]) -> list[float]:
    with one_thread():
        return [_peak(size, name) for name in events]


def _peak(size: str, name: str) -> float:
    subject = Subject(size)
    event = subject.event(name)
    for _ in range(2):
        event.prepare()
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
        event.run()
        added = _resident("VmHWM") - before
    return added / subject.numel


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"/proc/self/status is without {field}")
    return int(found[1]) * 1024

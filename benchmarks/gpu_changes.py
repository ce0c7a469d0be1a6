"""What changes of all masks of a model take on a GPU, until they are done and in kernels alone."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.events import Event, Subject

CHANGES = ("RigL update", "prune, uniform")


def changes(model: str, device: torch.device, rounds: int) -> list[dict[str, str | float | None]]:
    """Return a line for each change: milliseconds until it is done, and those of its kernels.

    A RigL update is the whole step that it takes the place of, without the gradients. A prune is
    the end of a phase in which all layers were dense, without the evaluations around it.
    """
    subject = Subject(model, device)
    found: list[dict[str, str | float | None]] = []
    for name in CHANGES:
        event = subject.event(name)
        taken = [_seconds(event, device) for _ in range(-1, rounds)][1:]
        kernels, busy = _kernels(event, device)
        found.append(
            {
                "change": f"{model}, {name}",
                "ms": 1000 * statistics.median(taken),
                "ms of kernels": busy,
                "kernels": kernels,
            }
        )
    return found


def _seconds(event: Event, device: torch.device) -> float:
    event.prepare()
    _wait(device)
    began = time.perf_counter()
    event.run()
    _wait(device)
    return time.perf_counter() - began


def _kernels(event: Event, device: torch.device) -> tuple[float | None, float | None]:
    """Return how many kernels and copies a change runs, and their milliseconds; None off CUDA."""
    if device.type != "cuda":
        return None, None
    event.prepare()
    _wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        event.run()
        _wait(device)
    events: Any = seen.events()
    own = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    return float(len(own)), sum(e.self_device_time_total for e in own) / 1000


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""What masks add to a training step of ResNet-50 on a GPU: images a second and peak memory.

    python -m benchmarks.gpu_steps [--batch 128] [--steps 20] [--rounds 5] [--page results/gpu.md]

Needs CUDA; without it there is one line and exit code 2. A step is bf16 autocast on channels_last
images of 224 px that lie on the GPU already, SGD with momentum, and for masked ones RigL between
two updates at sparsity 0.9. Dense and masked take turns on the first GPU, once plainly, once with
torch.compile, and once with torch.compile and CUDA graphs (mode "reduce-overhead"). With two GPUs
or more, two masked trials also run side by side in processes of their own, one a GPU, which do not
know of each other; their sum is compared with one trial alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from benchmarks.models import images, optimizer_of, resnet50
from benchmarks.rows import interleaved, paired
from benchmarks.step_overhead import sparsifier_of

MODES: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "torch.compile": {},
    "torch.compile + CUDA graphs": {"mode": "reduce-overhead"},
}
COLUMNS = ("setting", "dense images/s", "masked images/s", "time ratio", "dense GB", "masked GB")
SIZE, WARM = 224, 5  # pixels, and steps before anything is counted
Line = dict[str, str | float | None]


def trainer(
    masked: bool, mode: str, device: torch.device, batch: int, make: Callable[[], nn.Module]
) -> Callable[[], None]:
    """Return what does one training step of a new model on `device`."""
    torch.manual_seed(0)
    model = make().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimizer_of("SGD", model)
    step: Callable[[], object] = optimizer.step
    if masked:
        step = sparsifier_of("rigl", model, optimizer).step
    options = MODES[mode]
    forward = model if options is None else cast(nn.Module, torch.compile(model, **options))
    inputs, labels = (tensor.to(device) for tensor in images(batch, SIZE)())
    inputs = inputs.to(memory_format=torch.channels_last)

    def train() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = functional.cross_entropy(forward(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        step()
        optimizer.zero_grad(set_to_none=True)  # gradients in a CUDA graph's memory end with it

    return train


def compared(
    mode: str,
    device: torch.device,
    batch: int,
    steps: int,
    rounds: int,
    make: Callable[[], nn.Module] = resnet50,
) -> Line:
    """Return the line of one mode: dense and masked in turn, `steps` steps a turn."""
    ways: dict[str, Callable[[], None]] = {}
    peaks: dict[str, float | None] = {}
    for name in ("dense", "masked"):
        before = _start_of_peak(device)
        train = trainer(name == "masked", mode, device, batch, make)
        _turn(train, WARM, device)()
        peaks[name] = _peak(device, before)
        ways[name] = _turn(train, steps, device)
    seen = interleaved(ways, rounds, warm=1)
    speed = {n: batch * steps / statistics.median(taken) for n, taken in seen.items()}
    return {
        "setting": mode,
        "dense images/s": speed["dense"],
        "masked images/s": speed["masked"],
        "time ratio": paired(seen["masked"], seen["dense"]),
        "dense GB": peaks["dense"],
        "masked GB": peaks["masked"],
    }


def alone(place: int, batch: int, steps: int, barrier: Any, results: Any) -> None:
    """Put the images a second of one masked trial on GPU `place` into the queue `results`."""
    device = torch.device("cuda", place)
    torch.cuda.set_device(device)
    train = trainer(True, "eager", device, batch, resnet50)
    _turn(train, WARM, device)()
    barrier.wait()
    began = time.perf_counter()
    _turn(train, steps, device)()
    results.put(batch * steps / (time.perf_counter() - began))


def side_by_side(trials: int, batch: int, steps: int) -> float:
    """Return the images a second of `trials` trials together, each a process with its own GPU.

    Raises:
        RuntimeError: if one of them failed.
    """
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    barrier = context.Barrier(trials, timeout=600)  # seconds; one that failed never comes
    workers = [
        context.Process(target=alone, args=(place, batch, steps, barrier, results))
        for place in range(trials)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a trial failed: see above")
    return float(sum(results.get() for _ in workers))


def page(where: Mapping[str, str], lines: Sequence[Line]) -> str:
    """Return the Markdown page."""
    table = [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
        *("| " + " | ".join(_cell(line.get(name)) for name in COLUMNS) + " |" for line in lines),
    ]
    head = [f"- {name}: {value}" for name, value in where.items()]
    return "\n".join(["# ResNet-50 training steps on a GPU", "", *head, "", *table, ""])


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if value >= 100 else f"{value:.3f}"


def _turn(train: Callable[[], None], steps: int, device: torch.device) -> Callable[[], None]:
    def turn() -> None:
        for _ in range(steps):
            train()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return turn


def _start_of_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device, before: int) -> float | None:
    """Return gigabytes beyond `before`; None off CUDA, where nobody counts them."""
    if device.type != "cuda":
        return None
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="the median is over these")
    parser.add_argument("--page", type=Path, default=Path("results/gpu.md"))
    given = parser.parse_args(arguments)
    if min(given.batch, given.steps, given.rounds) < 1:
        parser.error("--batch, --steps and --rounds need 1 or more")
    if not torch.cuda.is_available():
        print("gpu_steps: needs a CUDA GPU, and torch sees none here", file=sys.stderr)
        return 2
    device = torch.device("cuda", 0)
    lines: list[Line] = []
    for mode in MODES:
        lines.append(compared(mode, device, given.batch, given.steps, given.rounds))
        torch.compiler.reset()
    if torch.cuda.device_count() > 1:
        for trials in (1, 2):
            speed = side_by_side(trials, given.batch, given.steps * given.rounds)
            lines.append({"setting": f"{trials} masked, eager, a GPU each", COLUMNS[2]: speed})
    words = [
        "python",
        "-m",
        "benchmarks.gpu_steps",
        *(sys.argv[1:] if arguments is None else arguments),
    ]
    where = {
        "machine": f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "command": f"`{shlex.join(words)}`",
        "batch": f"{given.batch}, bf16 autocast, channels_last",
    }
    text = page(where, lines)
    given.page.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What masks add to a training step on a GPU, and what a CUDA graph saves: images a second.

    python -m benchmarks.gpu_steps [--models ResNet-20 ResNet-50] [--modes eager captured ...]
        [--batch 128] [--steps 20] [--rounds 5] [--page results/gpu.md]

Needs CUDA; without it there is one line and exit code 2. A step is bf16 autocast on channels_last
images that lie on the GPU already, of 32 px for ResNet-20 and of 224 px for ResNet-50, SGD with
momentum, and for masked ones RigL between two updates at sparsity 0.9. Dense and masked take turns
on the first GPU in each mode: plainly; captured, as gapbench does it; with torch.compile; and with
torch.compile and its CUDA graphs (mode "reduce-overhead"). A second table has what changes of all
masks take, until they are done and in kernels alone. With two GPUs or more, two masked trials of
ResNet-50 also run side by side in processes of their own, one a GPU, which do not know of each
other; their sum is compared with one trial alone.
"""

from __future__ import annotations

import argparse
import itertools
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

from benchmarks.gpu_changes import changes
from benchmarks.models import Batch, images, resnet20, resnet50
from benchmarks.rows import interleaved, paired
from benchmarks.step_overhead import sparsifier_of
from gapbench.tasks.task import Recipe
from gapbench.training.setup import build_optimizer
from gapbench.training.step import CapturedStep, CudaGraphs, Move

MODES: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "captured": None,
    "torch.compile": {},
    "torch.compile + CUDA graphs": {"mode": "reduce-overhead"},
}
COLUMNS = ("setting", "dense images/s", "masked images/s", "time ratio", "dense GB", "masked GB")
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and the pixels of a side
    "ResNet-20": (resnet20, 32),
    "ResNet-50": (resnet50, 224),
}
WARM = 5  # steps before anything is counted
Line = dict[str, str | float | None]


def trainer(
    masked: bool, mode: str, device: torch.device, batch: int, name: str
) -> Callable[[Batch], None]:
    """Return what does one training step of a new model on a batch on `device`."""
    torch.manual_seed(0)
    model = MODELS[name][0]().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, Recipe(epochs=1, batch_size=batch, lr=1e-4), fused=True)
    sparsifier = sparsifier_of("rigl" if masked else "dense", model, optimizer)
    step: Callable[[], object] = sparsifier.step if masked else optimizer.step
    options = MODES[mode]
    forward = model if options is None else cast(nn.Module, torch.compile(model, **options))

    def eager(given: Batch) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = functional.cross_entropy(forward(given[0]), given[1])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def train(given: Batch) -> None:
        eager(given)
        step()
        optimizer.zero_grad(set_to_none=True)  # gradients in a CUDA graph's memory end with it

    if mode != "captured":
        return train
    captured = CapturedStep(eager, model, CudaGraphs(), Move(sparsifier))

    def replay(given: Batch) -> None:
        if captured.whole(given) is not None:
            return sparsifier.taken()
        captured(given)
        sparsifier.step()
        optimizer.zero_grad(set_to_none=True)

    return replay


def repeated(
    masked: bool, mode: str, device: torch.device, batch: int, name: str
) -> Callable[[], None]:
    """Return what does one training step of a new model on images that lie on `device`."""
    train = trainer(masked, mode, device, batch, name)
    inputs, labels = (tensor.to(device) for tensor in images(batch, MODELS[name][1])())
    inputs = inputs.to(memory_format=torch.channels_last)
    return lambda: train((inputs, labels))


def compared(
    mode: str,
    device: torch.device,
    batch: int,
    steps: int,
    rounds: int,
    model: str,
) -> Line:
    """Return the line of one model and mode: dense and masked in turn, `steps` steps a turn."""
    ways: dict[str, Callable[[], None]] = {}
    peaks: dict[str, float | None] = {}
    for name in ("dense", "masked"):
        before = _start_of_peak(device)
        train = repeated(name == "masked", mode, device, batch, model)
        _turn(train, WARM, device)()
        peaks[name] = _peak(device, before)
        ways[name] = _turn(train, steps, device)
    seen = interleaved(ways, rounds, warm=1)
    speed = {n: batch * steps / statistics.median(taken) for n, taken in seen.items()}
    return {
        "setting": f"{model}, {mode}",
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
    train = repeated(True, "eager", device, batch, "ResNet-50")
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


def page(where: Mapping[str, str], *tables: Sequence[Line]) -> str:
    """Return the Markdown page; each table has the columns of its first line."""
    text = [
        "# Training steps on a GPU",
        "",
        *(f"- {name}: {value}" for name, value in where.items()),
    ]
    for lines in tables:
        columns = tuple(lines[0])
        text += ["", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        text += ["| " + " | ".join(_cell(ln.get(name)) for name in columns) + " |" for ln in lines]
    return "\n".join([*text, ""])


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
        wait(device)

    return turn


def wait(device: torch.device) -> None:
    """Wait until a GPU has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start_of_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.init()  # type: ignore[no-untyped-call]  # without it no device has statistics
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
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
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
    for model, mode in itertools.product(given.models, given.modes):
        lines.append(compared(mode, device, given.batch, given.steps, given.rounds, model))
        torch.compiler.reset()
    if torch.cuda.device_count() > 1 and "ResNet-50" in given.models:
        for trials in (1, 2):
            speed = side_by_side(trials, given.batch, given.steps * given.rounds)
            lines.append({"setting": f"{trials} x ResNet-50, eager, a GPU each", COLUMNS[2]: speed})
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
    moved = [line for model in given.models for line in changes(model, device, given.rounds)]
    text = page(where, lines, moved)
    given.page.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

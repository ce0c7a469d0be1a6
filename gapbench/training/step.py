"""The gradients of one step: computed anew, or replayed from a CUDA graph.

A graph holds the forward and the backward pass alone. The optimiser and the masks follow it as they
do without one, so a mask that moves leaves the graph as it is: docs/gpu.md says why.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gapbench.tasks.task import Batch, Recipe, Task
from gapbench.training.distributed import Ranks

EAGER = "GAPBENCH_EAGER"  # a variable of the environment: no step is captured
WARM = 3  # passes before a capture: libraries allocate and choose kernels in the first ones

Pass = Callable[[], Tensor]  # fills the gradients and returns the loss, both on the device
Record = Callable[[Pass], tuple[Tensor, Callable[[], None]]]

_capturing = threading.Lock()  # torch allows one capture at a time in a process


class Step(Protocol):
    """How the gradients of a batch come about; the choice changes no bit."""

    def __call__(self, batch: Batch) -> Tensor:
        """Leave the gradients of the batch's loss in the parameters, which have none before.

        Returns:
            the loss, a scalar on the device that the next call may overwrite.
        """


@dataclass(frozen=True)
class EagerStep:
    """Computes the gradients, kernel by kernel."""

    task: Task
    recipe: Recipe
    replica: nn.Module
    device: torch.device

    def __call__(self, batch: Batch) -> Tensor:
        """Do one forward and one backward pass."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            loss = self.task.loss(self.replica, batch, self.recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def step_of(task: Task, recipe: Recipe, model: nn.Module, replica: nn.Module, ranks: Ranks) -> Step:
    """Return the step of a trial: captured wherever it can be.

    Args:
        task: its loss is what is captured.
        recipe: of the trial.
        model: on its device.
        replica: what the loss calls: the model, or a wrapper of it.
        ranks: that share a batch.
    """
    device = next(model.parameters()).device
    eager = EagerStep(task, recipe, replica, device)
    return CapturedStep(eager, model) if why_eager(task, device, ranks) is None else eager


def why_eager(task: Task, device: torch.device, ranks: Ranks) -> str | None:
    """Return why the steps of a trial are not captured; None if they are."""
    if device.type != "cuda":
        return f"a {device.type} has no graphs"
    if os.environ.get(EAGER):
        return f"{EAGER} is set"
    if not task.capturable:
        return f"{task.name}: its batches differ in shape, or its loss waits for the device"
    if ranks.world > 1:
        return "averaging gradients over ranks is not captured"
    if task.compile:
        return "torch's compiler makes kernels of its own"
    return None


def cuda_graph(run: Pass) -> tuple[Tensor, Callable[[], None]]:
    """Record a pass as a CUDA graph, on the stream that is current, or beside the default one.

    Returns:
        the loss, which each replay overwrites as it does the gradients; and what replays.

    Raises:
        RuntimeError: if the pass waits for the device.
    """
    current = torch.cuda.current_stream()
    default = current == torch.cuda.default_stream()  # no graph can be captured on that one
    stream = torch.cuda.Stream() if default else current  # type: ignore[no-untyped-call]
    graph = torch.cuda.CUDAGraph()
    try:
        with _capturing, torch.cuda.stream(stream):
            stream.wait_stream(current)
            for _ in range(WARM):
                run()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                loss = run()
    finally:
        current.wait_stream(stream)
    return loss, graph.replay


@dataclass(frozen=True)
class Capture:
    """A recorded pass with all memory that it reads and writes from one replay to the next.

    Attributes:
        inputs: the batch that it reads.
        state: parameters and buffers that it reads, and where they lay.
        gradients: what it writes for each parameter that took part in the loss.
        loss: what it writes beside them.
        replay: runs it.
    """

    inputs: tuple[Tensor, ...]
    state: tuple[tuple[Tensor, int], ...]
    gradients: tuple[tuple[nn.Parameter, Tensor], ...]
    loss: Tensor
    replay: Callable[[], None]

    def fits(self, batch: Batch) -> bool:
        """Say whether the memory is still the model's, and the batch laid out as the one before."""
        return all(tensor.data_ptr() == place for tensor, place in self.state) and (
            tuple(map(_layout, self.inputs)) == tuple(map(_layout, batch))
        )

    def run(self, batch: Batch) -> Tensor:
        """Replay it on a batch; the gradients are the parameters' then."""
        for fixed, tensor in zip(self.inputs, batch, strict=True):
            fixed.copy_(tensor)
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.loss


class CapturedStep:
    """Replays a recorded pass, and records it anew where memory was exchanged.

    A pass that draws random numbers, or that cannot be recorded, is computed eagerly from then on,
    with a warning that says so.

    Args:
        eager: the pass.
        model: whose parameters and buffers it reads.
        record: makes a replay of a pass that was run on the device.

    Attributes:
        captures: how often the pass was recorded.
        refused: why it is computed eagerly, or None.
    """

    def __init__(self, eager: Step, model: nn.Module, record: Record = cuda_graph) -> None:
        self.captures = 0
        self.refused: str | None = None
        self._eager = eager
        self._model = model
        self._record = record
        self._capture: Capture | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Leave the gradients of the batch's loss in the parameters."""
        if self.refused is None and (self._capture is None or not self._capture.fits(batch)):
            self._capture = None  # its memory serves the next one
            self._capture = self._recorded(batch)
        return self._eager(batch) if self._capture is None else self._capture.run(batch)

    def _recorded(self, batch: Batch) -> Capture | None:
        """Record the pass; weights, buffers and generators are then as they were."""
        parameters = list(self._model.parameters())
        inputs = tuple(tensor.clone() for tensor in batch)

        def run() -> Tensor:
            _forget_gradients(parameters)
            return self._eager(inputs)

        with _unchanged(self._model) as drew:
            try:
                loss, replay = self._record(run)
            except RuntimeError as error:
                self.refused = str(error).partition("\n")[0]
            else:
                self.refused = "the model draws random numbers" if drew() else None
        gradients = tuple((p, p.grad) for p in parameters if p.grad is not None)
        _forget_gradients(parameters)
        if self.refused is not None:
            warnings.warn(f"steps are not captured: {self.refused}", stacklevel=3)
            return None
        self.captures += 1
        state = tuple((t, t.data_ptr()) for t in (*parameters, *self._model.buffers()))
        return Capture(inputs, state, gradients, loss, replay)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Undo what passes inside do to buffers and generators; yields whether these have moved."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    device = next(model.parameters()).device
    drawn_from = [torch.default_generator]
    if device.type == "cuda":
        place = torch.cuda.current_device() if device.index is None else device.index
        drawn_from.append(torch.cuda.default_generators[place])
    states = [(generator, generator.get_state()) for generator in drawn_from]

    def moved() -> bool:
        return any(not torch.equal(g.get_state(), state) for g, state in states)

    try:
        yield moved
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for generator, state in states:
            generator.set_state(state)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _forget_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None

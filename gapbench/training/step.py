"""One step of training: computed kernel by kernel, or replayed from CUDA graphs.

The first graph ends with the gradients. The second graph also moves the weights and holds them
under their masks. Masks, learning rates and moments have fixed addresses, so both graphs stay valid
while masks change: see docs/gpu.md.
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

from gapbench.engine.sparsifier import Sparsifier
from gapbench.tasks.task import Batch, Recipe, Task
from gapbench.training.distributed import Ranks

EAGER = "GAPBENCH_EAGER"  # a variable of the environment: no step is captured
WARM = 3  # passes before a capture: libraries allocate and choose kernels in the first ones

Pass = Callable[[], Tensor]  # returns the loss, on the device
Record = Callable[[Pass], tuple[Tensor, Callable[[], None]]]

_capturing = threading.Lock()  # torch allows one capture at a time in a process


class Step(Protocol):
    """The computation of one training step; all implementations give the same bits."""

    def __call__(self, batch: Batch) -> Tensor:
        """Compute the gradients of the batch's loss in parameters without gradients.

        Returns:
            the loss, a scalar on the device, which the next call may overwrite.
        """

    def whole(self, batch: Batch) -> Tensor | None:
        """Take a whole step in which no mask changes: gradients and `Sparsifier.move`.

        Returns:
            the loss; or None if nothing was done and the caller must take the two parts separately.
        """


@dataclass(frozen=True)
class EagerStep:
    """Computes the gradients kernel by kernel."""

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

    def whole(self, batch: Batch) -> Tensor | None:
        """Return None: the caller takes the two parts of the step."""
        return None


def step_of(
    task: Task,
    recipe: Recipe,
    model: nn.Module,
    replica: nn.Module,
    ranks: Ranks,
    sparsifier: Sparsifier,
) -> Step:
    """Return the step of a trial: a captured step where possible, else an eager one.

    Args:
        task: the task, whose loss is captured.
        recipe: recipe of the trial.
        model: the model, on its device.
        replica: the module that the loss calls: the model or a wrapper of the model.
        ranks: the ranks that share a batch.
        sparsifier: the model's sparsifier.
    """
    device = next(model.parameters()).device
    eager = EagerStep(task, recipe, replica, device)
    if why_eager(task, device, ranks) is not None:
        return eager
    move = None if recipe.clip_norm else Move(sparsifier)  # what is clipped depends on masks
    return CapturedStep(eager, model, CudaGraphs(), move)


def why_eager(task: Task, device: torch.device, ranks: Ranks) -> str | None:
    """Return the reason why a trial's steps are not captured, or None if they are."""
    if device.type != "cuda":
        return f"a {device.type} has no graphs"
    if os.environ.get(EAGER):
        return f"{EAGER} is set"
    if not task.capturable:
        return f"{task.name}: its batches differ in shape, or its loss waits for the device"
    if ranks.world > 1:
        return "averaging gradients over ranks is not captured"
    if task.compile:
        return "torch's compiler makes its own kernels"
    return None


class CudaGraphs:
    """Records passes of one trial as CUDA graphs that share a memory pool.

    A replay hands on only the returned tensors and tensors that existed before the recording. So
    the graphs may be replayed in any order.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Pass) -> tuple[Tensor, Callable[[], None]]:
        """Record a pass on the current stream, or on a side stream of the default stream.

        Returns:
            the loss, which each replay overwrites; and the function that replays the pass.

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
                with torch.cuda.graph(graph, self._pool, stream, "thread_local"):
                    loss = run()
        finally:
            current.wait_stream(stream)
        return loss, graph.replay


class Move:
    """The part of a step without mask change that follows the gradients, for a CUDA graph.

    The optimiser's learning rate and the factors of the masks keep their addresses. Moments keep
    their addresses until they are dropped or loaded.

    Args:
        sparsifier: the sparsifier of the model.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self._sparsifier = sparsifier
        self._factors = sparsifier.weights.place()

    def __call__(self) -> None:
        """Move the weights by their gradients."""
        self._sparsifier.move()

    def moments(self) -> list[Tensor]:
        """Return the optimiser's state tensors, which a move changes."""
        entries = self._sparsifier.optimizer.state.values()
        return [value for entry in entries for value in entry.values() if torch.is_tensor(value)]

    def settled(self, parameters: int) -> bool:
        """Say whether the optimiser has its state of all parameters, and its rates are tensors.

        Args:
            parameters: number of parameters that have gradients.
        """
        optimizer = self._sparsifier.optimizer
        return len(optimizer.state) == parameters and all(
            isinstance(group["lr"], Tensor) for group in optimizer.param_groups
        )

    def first(self) -> object:
        """Return an object of the optimiser's state whose identity changes with new moments."""
        return next(iter(self._sparsifier.optimizer.state.values()), None)

    def fixed(self) -> list[Tensor]:
        """Return the tensors that a move reads and does not change."""
        rates = [group["lr"] for group in self._sparsifier.optimizer.param_groups]
        return [*rates, *self._factors]


@dataclass(frozen=True)
class Capture:
    """A recorded pass with the memory that the pass reads and writes in every replay.

    Attributes:
        inputs: the batch tensors that the pass reads.
        state: the other existing tensors that the pass reads, with their addresses.
        gradients: the gradients that the pass writes, per parameter that took part in the loss.
        loss: the loss that the pass writes.
        replay: function that replays the pass.
        first: the optimiser's object from `Move.first`.
    """

    inputs: tuple[Tensor, ...]
    state: tuple[tuple[Tensor, int], ...]
    gradients: tuple[tuple[nn.Parameter, Tensor], ...]
    loss: Tensor
    replay: Callable[[], None]
    first: object = None

    def fits(self, batch: Batch, first: object = None) -> bool:
        """Say whether the recorded memory is still in use and the batch has the recorded layout."""
        return (
            self.first is first
            and all(tensor.data_ptr() == place for tensor, place in self.state)
            and tuple(map(_layout, self.inputs)) == tuple(map(_layout, batch))
        )

    def run(self, batch: Batch) -> Tensor:
        """Replay the pass on a batch, set the parameters' gradients, and return the loss."""
        for fixed, tensor in zip(self.inputs, batch, strict=True):
            fixed.copy_(tensor)
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.loss


class CapturedStep:
    """Replays recorded passes, and records a pass again if its memory was replaced.

    One pass computes the gradients. A second pass computes the gradients and moves the weights; it
    serves all steps except the first steps, steps in which masks change, and steps that end a phase
    with dropped moments. A pass that draws random numbers or that cannot be recorded is computed
    eagerly from then on, with a warning.

    Args:
        eager: the eager pass.
        model: the model whose parameters and buffers the pass reads.
        record: function that records a pass on the device and returns its replay.
        move: the move of the weights by their gradients; None leaves the move to the caller.

    Attributes:
        captures: number of recordings of the pass that computes gradients.
        whole_captures: number of recordings of the whole step.
        refused: reason for eager computation, or None.
    """

    def __init__(
        self,
        eager: Callable[[Batch], Tensor],
        model: nn.Module,
        record: Record,
        move: Move | None = None,
    ) -> None:
        self.captures = self.whole_captures = 0
        self.refused: str | None = None
        self._eager = eager
        self._model = model
        self._record = record
        self._move = move
        self._capture: Capture | None = None
        self._whole: Capture | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Compute the gradients of the batch's loss in the parameters."""
        if self.refused is None and (self._capture is None or not self._capture.fits(batch)):
            self._capture = None  # its memory serves the next one
            self._capture = self._recorded(batch)
            self.captures += self._capture is not None
        return self._eager(batch) if self._capture is None else self._capture.run(batch)

    def whole(self, batch: Batch) -> Tensor | None:
        """Take a whole step, once an earlier step has created all gradients and moments."""
        move, known = self._move, self._capture
        if move is None or known is None or not move.settled(len(known.gradients)):
            return None
        first = move.first()
        if self._whole is None or not self._whole.fits(batch, first):
            self._whole = None
            self._whole = self._recorded(batch, move)
            if self._whole is None:
                return None
            self.whole_captures += 1
        return self._whole.run(batch)

    def _recorded(self, batch: Batch, move: Move | None = None) -> Capture | None:
        """Record a pass; restore weights, buffers, moments and generators afterwards."""
        parameters = list(self._model.parameters())
        inputs = tuple(tensor.clone() for tensor in batch)
        read = [*parameters, *self._model.buffers()]
        written = list(self._model.buffers())
        if move is not None:
            moments = move.moments()
            read += moments + move.fixed()
            written += parameters + moments

        def run() -> Tensor:
            _forget_gradients(parameters)
            loss = self._eager(inputs)
            if move is not None:
                move()
            return loss

        try:
            with _unchanged(written, parameters[0].device) as drew:
                loss, replay = self._record(run)
                reason = "the model draws random numbers" if drew() else None
        except RuntimeError as error:  # too little memory is one too
            reason = str(error).partition("\n")[0]
        gradients = tuple((p, p.grad) for p in parameters if p.grad is not None)
        _forget_gradients(parameters)
        if reason is not None:
            what = "steps" if move is None else "whole steps"
            warnings.warn(f"{what} are not captured: {reason}", stacklevel=3)
            self._move = None
            self.refused = reason if move is None else None  # gradients still are
            return None
        state = tuple((tensor, tensor.data_ptr()) for tensor in read)
        if move is not None:
            return Capture(inputs, state, (), loss, replay, move.first())
        return Capture(inputs, state, gradients, loss, replay)


def generators_of(device: torch.device) -> list[torch.Generator]:
    """Return the default generators from which a step on a device may draw."""
    if device.type != "cuda":
        return [torch.default_generator]
    place = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[place]]


@contextmanager
def _unchanged(written: list[Tensor], device: torch.device) -> Iterator[Callable[[], bool]]:
    """Undo changes of tensors and generators in the block; yield a check for moved generators."""
    before = [tensor.detach().clone() for tensor in written]
    states = [(generator, generator.get_state()) for generator in generators_of(device)]

    def moved() -> bool:
        return any(not torch.equal(g.get_state(), state) for g, state in states)

    try:
        yield moved
    finally:
        with torch.no_grad():
            for tensor, own in zip(written, before, strict=True):
                tensor.copy_(own)
        for generator, state in states:
            generator.set_state(state)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _forget_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None

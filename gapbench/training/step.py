"""One step of training: computed kernel by kernel, or replayed from CUDA graphs.

One graph ends with the gradients, a second one with weights that are moved and held under their
masks. Masks, rates and moments have fixed places, so that both serve while masks move: docs/gpu.md.
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
    """How a batch moves the weights; the choice changes no bit."""

    def __call__(self, batch: Batch) -> Tensor:
        """Leave the gradients of the batch's loss in the parameters, which have none before.

        Returns:
            the loss, a scalar on the device that the next call may overwrite.
        """

    def whole(self, batch: Batch) -> Tensor | None:
        """Do all of a step in which no mask changes: gradients and `Sparsifier.move`.

        Returns:
            the loss; or None if the two are to be done one after the other.
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

    def whole(self, batch: Batch) -> Tensor | None:
        """Return None."""
        return None


def step_of(
    task: Task,
    recipe: Recipe,
    model: nn.Module,
    replica: nn.Module,
    ranks: Ranks,
    sparsifier: Sparsifier,
) -> Step:
    """Return the step of a trial: captured wherever it can be.

    Args:
        task: its loss is what is captured.
        recipe: of the trial.
        model: on its device.
        replica: what the loss calls: the model, or a wrapper of it.
        ranks: that share a batch.
        sparsifier: of the model.
    """
    device = next(model.parameters()).device
    eager = EagerStep(task, recipe, replica, device)
    if why_eager(task, device, ranks) is not None:
        return eager
    move = None if recipe.clip_norm else Move(sparsifier)  # what is clipped depends on masks
    return CapturedStep(eager, model, CudaGraphs(), move)


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


class CudaGraphs:
    """Records passes of one trial as CUDA graphs, which share their memory.

    Each replay leaves to the next one only what the passes return and write to memory of before,
    so that it does not matter which of them is replayed when.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Pass) -> tuple[Tensor, Callable[[], None]]:
        """Record a pass on the stream that is current, or beside the default one.

        Returns:
            the loss, which each replay overwrites as it does all that the pass writes; and what
            replays.

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
    """What follows the gradients in a step without a change of masks, for a graph.

    Args:
        sparsifier: its optimiser's rate and the factors that hold masks stay in their places, and
            so do moments until they are dropped or loaded.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self._sparsifier = sparsifier
        self._factors = sparsifier.weights.place()

    def __call__(self) -> None:
        """Move the weights by their gradients."""
        self._sparsifier.move()

    def moments(self) -> list[Tensor]:
        """Return the optimiser's own tensors, which a move changes."""
        entries = self._sparsifier.optimizer.state.values()
        return [value for entry in entries for value in entry.values() if torch.is_tensor(value)]

    def settled(self, parameters: int) -> bool:
        """Say whether nothing that a step makes once is still to be made.

        Args:
            parameters: that have gradients.
        """
        optimizer = self._sparsifier.optimizer
        return len(optimizer.state) == parameters and all(
            isinstance(group["lr"], Tensor) for group in optimizer.param_groups
        )

    def first(self) -> object:
        """Return what is another object once moments were dropped or loaded."""
        return next(iter(self._sparsifier.optimizer.state.values()), None)

    def fixed(self) -> list[Tensor]:
        """Return the tensors that a move reads and leaves as they are."""
        rates = [group["lr"] for group in self._sparsifier.optimizer.param_groups]
        return [*rates, *self._factors]


@dataclass(frozen=True)
class Capture:
    """A recorded pass with all memory that it reads and writes from one replay to the next.

    Attributes:
        inputs: the batch that it reads.
        state: what else it reads that is there before, and where that lay.
        gradients: what it leaves for each parameter that took part in the loss.
        loss: what it writes beside them.
        replay: runs it.
        first: of the optimiser, as of `Move.first`.
    """

    inputs: tuple[Tensor, ...]
    state: tuple[tuple[Tensor, int], ...]
    gradients: tuple[tuple[nn.Parameter, Tensor], ...]
    loss: Tensor
    replay: Callable[[], None]
    first: object = None

    def fits(self, batch: Batch, first: object = None) -> bool:
        """Say whether the memory is still the trial's, and the batch laid out as the one before."""
        return (
            self.first is first
            and all(tensor.data_ptr() == place for tensor, place in self.state)
            and tuple(map(_layout, self.inputs)) == tuple(map(_layout, batch))
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
    """Replays recorded passes, and records them anew where memory was exchanged.

    One pass ends with the gradients. A second one moves the weights by them too; it serves every
    step but the first ones, those in which masks change, and those that end a phase with dropped
    moments. A pass that draws random numbers, or that cannot be recorded, is computed eagerly from
    then on, with a warning that says so.

    Args:
        eager: the pass.
        model: whose parameters and buffers it reads.
        record: makes a replay of a pass that was run on the device.
        move: moves weights by their gradients; None leaves that to the caller.

    Attributes:
        captures: how often the gradients' pass was recorded.
        whole_captures: how often the whole step was.
        refused: why it is computed eagerly, or None.
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
        """Leave the gradients of the batch's loss in the parameters."""
        if self.refused is None and (self._capture is None or not self._capture.fits(batch)):
            self._capture = None  # its memory serves the next one
            self._capture = self._recorded(batch)
            self.captures += self._capture is not None
        return self._eager(batch) if self._capture is None else self._capture.run(batch)

    def whole(self, batch: Batch) -> Tensor | None:
        """Do all of a step, once a first one has settled what gradients and moments there are."""
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
        """Record a pass; weights, buffers, moments and generators are then as they were."""
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

        with _unchanged(written, parameters[0].device) as drew:
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
            self._move = self._capture = None
            return None
        state = tuple((tensor, tensor.data_ptr()) for tensor in read)
        if move is not None:
            return Capture(inputs, state, (), loss, replay, move.first())
        return Capture(inputs, state, gradients, loss, replay)


@contextmanager
def _unchanged(written: list[Tensor], device: torch.device) -> Iterator[Callable[[], bool]]:
    """Undo what passes inside do to tensors and generators; yields whether these have moved."""
    before = [tensor.detach().clone() for tensor in written]
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
            for tensor, own in zip(written, before, strict=True):
                tensor.copy_(own)
        for generator, state in states:
            generator.set_state(state)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _forget_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None

"""CUDA graphs on the CPU: a recorded pass that refuses what a graph could not see.

A graph replays the kernels of the recorded pass, with their numbers, on the memory of then. So here
each replay runs the pass again, and compares every kernel, its numbers, and the place of each
tensor that was there before the pass, with those of the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")


class Tape(TorchDispatchMode):
    """Notes kernels: name, numbers, and where tensors lie that were not made on the tape.

    Attributes:
        lines: one a kernel.
        places: the storages of tensors that were there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[Any, ...]] = []
        self.places: set[int] = set()
        self._own: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith("_record_function"):  # an optimiser's words for the profiler
            return func(*args, **(kwargs or {}))
        if name in READS:
            raise RuntimeError(f"{name} waits for the device")
        leaves = tree_leaves((args, kwargs or {}))
        inputs = {place_of(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        self.lines.append((str(func), *map(self._noted, leaves)))
        self.places |= inputs - self._own
        made = func(*args, **(kwargs or {}))
        results = {place_of(leaf) for leaf in tree_leaves(made) if isinstance(leaf, Tensor)}
        self._own |= results - inputs
        return made

    def _noted(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        own = place_of(leaf) in self._own
        return (*leaf.shape, *leaf.stride(), leaf.dtype, "own" if own else leaf.data_ptr())


def place_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class HostGraph:
    """A `Record` of `gapbench.training.step` for the CPU.

    Args:
        parameters: whose gradients a pass fills.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.tapes: list[Tape] = []  # one a recorded pass
        self.replays = 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        for _ in range(2):
            run()
        recorded = Tape()
        self.tapes.append(recorded)
        with recorded:
            loss = run()
        fixed = [(p, p.grad) for p in self.parameters if p.grad is not None]
        for memory in (loss, *(gradient for _, gradient in fixed)):
            memory.fill_(float("nan"))  # a capture computes nothing

        def replay() -> None:
            self.replays += 1
            with Tape() as tape:
                result = run()
            assert tape.lines == recorded.lines
            loss.copy_(result)
            for parameter, memory in fixed:
                assert parameter.grad is not None
                memory.copy_(parameter.grad)
                parameter.grad = None

        return loss, replay

"""Checks while a Sparsifier owns a model: replaced parameters, optimiser calls, other owners."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gapbench.errors import UserError

# Optimisers that update each entry of a parameter independently of the other entries. Gradients at
# masked positions have no effect in these optimisers; other optimisers get zero gradients there.
ELEMENTWISE = frozenset({
    "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop",
    "ASGD",
})  # fmt: skip

_owners: weakref.WeakSet[Any] = weakref.WeakSet()


class Wiring:
    """Finds out whether parameters of a model were replaced.

    Args:
        model: the model.
        names: names of the watched parameters.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._edges: dict[tuple[int, str], tuple[nn.Module, str, nn.Module]] = {}
        self._ends: list[tuple[str, nn.Module, str, nn.Parameter | None]] = []
        for name in names:
            *path, last = name.split(".")
            module = model
            for part in path:
                child = module._modules[part]
                assert child is not None
                self._edges[id(module), part] = module, part, child
                module = child
            self._ends.append((name, module, last, module._parameters.get(last)))

    def require_same(self) -> None:
        """Check that the model still has its original parameters.

        Raises:
            UserError: naming the first parameter that was replaced.
        """
        for module, part, child in self._edges.values():
            if module._modules.get(part) is not child:
                raise UserError(_replaced(part))
        for name, module, last, param in self._ends:
            if module._parameters.get(last) is not param:
                raise UserError(_replaced(name))


def _replaced(name: str) -> str:
    return (
        f"model: {name} was replaced after its Sparsifier was built: load_state_dict(assign=True) "
        "and setting a module replace parameters: build the Sparsifier afterwards"
    )


def claim(owner: Any, params: Mapping[str, nn.Parameter]) -> None:
    """Register a Sparsifier as the owner of parameters, until the Sparsifier is deleted.

    Raises:
        UserError: if another existing Sparsifier owns one of the parameters.
    """
    mine = {id(param): name for name, param in params.items()}
    for other in _owners:
        for param in other.weights.params.values():
            if id(param) in mine:
                raise UserError(
                    f"model: {mine[id(param)]} has a Sparsifier already: release() it, or build "
                    "model and optimiser anew"
                )
    _owners.add(owner)


def release(owner: Any) -> None:
    """Remove a Sparsifier as the owner of its parameters."""
    _owners.discard(owner)


def doubt(optimizer: torch.optim.Optimizer, params: Mapping[str, nn.Parameter]) -> str | None:
    """Return a reason why random masks would destroy trained weights, or None.

    The reason is void once a state is loaded into the Sparsifier before the first step.
    """
    for state in optimizer.state.values():
        step = state.get("step")
        if (step is not None and float(step) > 0) or state.get("momentum_buffer") is not None:
            return "the optimiser has state of earlier steps"
    for name, param in params.items():
        zeros = param.numel() - int(torch.count_nonzero(param))
        if param.numel() < 4 * zeros < 4 * param.numel():  # layers of zeros alone are begun so
            return f"{name} has {zeros} zeros of {param.numel()} already"
    return None


class Fresh:
    """Weights and moments from before the random first masks, until a first step or a loaded state.

    Args:
        tensors: weights and moments before masking.
        doubt: reason why masks would destroy trained weights, or None.
    """

    def __init__(self, tensors: Iterable[Tensor], doubt: str | None) -> None:
        self.doubt = doubt
        self._before = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._versions: list[int] = []

    def note(self) -> None:
        """Record that the tensors are masked now."""
        self._versions = [tensor._version for tensor, _ in self._before]

    def settle(self) -> None:
        """Accept the first masks.

        Raises:
            UserError: if there is a doubt; the masked values are restored before.
        """
        if self.doubt is not None:
            self.undo()
            raise UserError(
                f"initial: random masks would erase earlier training: {self.doubt}: load this "
                "Sparsifier's state too, or give initial='magnitude' to start from the weights, or "
                "initial='random'"
            )

    @torch.no_grad()
    def undo(self) -> None:
        """Restore the masked values of tensors that nobody has written to since the masking."""
        for (tensor, before), version in zip(self._before, self._versions, strict=True):
            if tensor._version == version:
                tensor.copy_(before)
        self.note()


def is_elementwise(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether an optimiser is known to update each entry from its own gradient alone."""
    return type(optimizer).__name__ in ELEMENTWISE and type(optimizer).__module__.startswith(
        "torch.optim."
    )


class SoleCaller:
    """Detects steps of an optimiser that other code takes.

    Args:
        optimizer: an optimiser that supports torch's step hooks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.calling = False
        self.others = 0
        own = weakref.ref(self)

        def seen(*_: object) -> None:
            caller = own()
            if caller is not None and not caller.calling:
                caller.others += 1

        # removes the hook once, at its call or at the deletion of this object
        self.stop = weakref.finalize(self, optimizer.register_step_post_hook(seen).remove)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Take steps of the optimiser inside as its owner's."""
        self.calling = True
        try:
            yield
        finally:
            self.calling = False

    def require_sole(self) -> None:
        """Check that no other code has called the optimiser's `step`.

        Raises:
            UserError: if other code has called it.
        """
        if self.others:
            self.others = 0
            raise UserError(
                "optimizer: its step() was called, and the Sparsifier's step() calls it too: leave "
                "optimizer.step() out, and give the Sparsifier to scaler.step()"
            )


def not_finite(params: Mapping[str, Tensor]) -> str:
    """Return a message that names the weights with NaN or infinity; "" if all are finite."""
    for name, param in params.items():
        count = int((~torch.isfinite(param.detach())).sum())
        if count:
            return f"; {name} has {count} weights that are not finite: training has diverged"
    return ""

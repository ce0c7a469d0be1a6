"""Mask changes of a whole model, ready to be measured: ours, a peer's, and plain passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import Stack, optimizer_of, resnet20, resnet50
from benchmarks.peers import SPARSITY, rigl_torch
from gapbench.engine.sparsifier import Sparsifier
from gapbench.plan.phases import Phase, Plan
from gapbench.sparsity.layers import prunable

DISTRIBUTIONS = ("uniform", "erk", "global_magnitude")
ROUNDS = 1000  # more mask changes than any measurement asks for
SIZES: dict[str, Callable[[], nn.Module]] = {
    "ResNet-50": resnet50,
    "2 layers of Transformer-big": lambda: Stack(2, 1024, 16, 4096),
    "a small layer": lambda: Stack(1, 16, 2, 32),
}


@dataclass(frozen=True)
class Event:
    """One thing to measure, and what brings the model back to where it can be done again."""

    prepare: Callable[[], None]
    run: Callable[[], object]


class Subject:
    """A model in the midst of training: weights, gradients, and momentum of SGD."""

    def __init__(self, size: str, device: torch.device | None = None) -> None:
        torch.manual_seed(0)
        self.model = (resnet20 if size == "ResNet-20" else SIZES[size])().to(device)
        self.optimizer = optimizer_of("SGD", self.model)
        for param in self.model.parameters():
            param.grad = torch.randn_like(param)
        self.optimizer.step()
        self.weights = {n: self.model.get_parameter(n) for n in prunable(self.model)}
        self.numel = sum(weight.numel() for weight in self.weights.values())
        self._start = {n: weight.detach().clone() for n, weight in self.weights.items()}

    def event(self, name: str) -> Event:
        """Return the event of this name."""
        kind, _, rest = name.partition(", ")
        if kind == "prune":
            return self._prune(rest)
        if kind == "RigL update":
            return self._rigl()
        return self._rigl_torch() if kind == "rigl-torch" else self._pass(name)

    @torch.no_grad()
    def restore(self) -> None:
        """Give all weights their values from before the first change."""
        for name, weight in self.weights.items():
            weight.copy_(self._start[name])

    def _prune(self, distribution: str) -> Event:
        """Return the end of a phase in which all layers were dense, as in DSD."""
        grown = Phase(1, grow=frozenset(self.weights), restart=False)
        sparse = Phase(1, restart=False)
        sparsifier = Sparsifier(
            self.model,
            self.optimizer,
            Plan((grown, sparse) * ROUNDS),
            sparsity=SPARSITY,
            distribution=distribution,
            steps_per_epoch=1,
            manual_phases=True,
        )
        sparsifier.release()  # the events of a subject take turns with its model

        def grow() -> None:
            if sparsifier.phase_ended or not sparsifier.segment.phase.grow:
                sparsifier.step()
                sparsifier.next_phase()
            sparsifier.step()
            self.restore()

        return Event(grow, sparsifier.next_phase)

    def _rigl(self) -> Event:
        sparsifier = Sparsifier(
            self.model,
            self.optimizer,
            "rigl",
            sparsity=SPARSITY,
            epochs=1,
            steps_per_epoch=ROUNDS,
            every=1,
            initial="random",
        )
        sparsifier.release()
        sparsifier.step()  # from the second step on, each is an update

        def settle() -> None:
            self.restore()
            sparsifier.weights.hold()

        return Event(settle, sparsifier.step)

    def _rigl_torch(self) -> Event:
        scheduler: Any = rigl_torch(self.model, self.optimizer, every=2)

        def settle() -> None:
            self.restore()
            scheduler.apply_mask_to_weights()
            scheduler.step = 1  # the next call is an update
            for hook in scheduler.backward_hook_objects:
                if hook is not None:
                    hook.dense_grad = scheduler.W[hook.layer].grad.clone()

        return Event(settle, scheduler)

    def _pass(self, name: str) -> Event:
        one: dict[str, Callable[[Tensor], Tensor]] = {
            "topk": _topk,
            "topk, again": _topk,
            "kthvalue": _kthvalue,
            "copy": torch.clone,
        }

        def whole() -> None:
            for weight in self._start.values():
                one[name](weight)

        return Event(lambda: None, whole)


def _topk(weight: Tensor) -> Tensor:
    return weight.abs().flatten().topk(_kept(weight)).indices


def _kthvalue(weight: Tensor) -> Tensor:
    rank = weight.numel() - _kept(weight) + 1
    return weight.abs().flatten().kthvalue(rank).values


def _kept(weight: Tensor) -> int:
    return max(1, round((1 - SPARSITY) * weight.numel()))

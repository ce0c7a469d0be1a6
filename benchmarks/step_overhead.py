"""What masks add to a training step: gapbench and its peers against dense training.

    python -m benchmarks.step_overhead [--quick] [--json FILE]

Every contestant trains a model of its own from the same weights on the same batch: gradients to
None, forward, backward, step. All take turns in one process on one thread, and each turn is
compared with the dense turn of its round. Counted is processor time, to which other work on the
machine matters less. "A/A" is a second dense contestant: how far
its ratio is from 1 says how far the others' may be wrong. Sparsity is 0.9, masks are uniform and
random; C-GaP is in a phase with one of four partitions dense, RigL is between two updates.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.models import Batch, Stack, images, optimizer_of, resnet20, resnet50, tokens
from benchmarks.peers import NEVER, SPARSITY, NotInstalled, rigl_torch, torch_ao, torch_prune
from benchmarks.rows import Peer, Row, interleaved, main, paired
from gapbench.engine.sparsifier import Sparsifier

LIMIT = 1.015  # of a step of a small model at batch 4, where masks weigh most
METHODS: dict[str, dict[str, Any]] = {
    "static": {},
    "c_gap": {"partitions": 4},
    "rigl": {"every": NEVER},
}
PEERS = ("rigl-torch", "torch.nn.utils.prune", "torch.ao.pruning")


@dataclass(frozen=True)
class Setting:
    """One model, batch and optimiser, and how long it is measured."""

    name: str
    model: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    optimizer: str
    rounds: int
    limit: float | None = None


def settings(quick: bool) -> list[Setting]:
    """Return what is measured, the settings in which masks weigh most first."""
    if quick:
        return [
            Setting("ResNet-20, batch 2", resnet20, images(2, 8), "SGD", 2, limit=LIMIT),
            Setting(
                "a Transformer layer", lambda: Stack(1, 16, 2, 32), tokens(2, 3, 16), "AdamW", 2
            ),
        ]
    found = []
    for kind in ("SGD", "AdamW"):
        found += [
            Setting("ResNet-20, batch 4", resnet20, images(4, 32), kind, 120, LIMIT),
            Setting("ResNet-20, batch 64", resnet20, images(64, 32), kind, 7),
            Setting("ResNet-50, batch 4 of 64 px", resnet50, images(4, 64), kind, 6),
            Setting(
                "4 Transformer layers of 512, 4 x 32 tokens",
                lambda: Stack(4, 512, 8, 2048),
                tokens(4, 32, 512),
                kind,
                7,
            ),
        ]
    return found


def rows(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    with one_thread():
        found = [row for setting in settings(quick) for row in measured(setting)]
        return [*found, memory(resnet20 if quick else resnet50)]


def measured(setting: Setting) -> list[Row]:
    """Return the rows of one setting: the control, then each method with all peers beside it."""
    torch.manual_seed(0)
    batch, weights = setting.batch(), setting.model().state_dict()
    ways: dict[str, Callable[[], None]] = {}
    missing: dict[str, str] = {}
    for name in ("dense", "A/A", *METHODS, *PEERS):
        model = setting.model()
        model.load_state_dict(weights)
        try:
            step = contestant(name, model, setting.optimizer, batch)
        except NotInstalled as error:
            missing[name] = str(error)
        else:
            ways[name] = step
    seen = interleaved(ways, setting.rounds, warm=2, clock=time.process_time)
    milliseconds = {n: statistics.median(s) * 1000 for n, s in seen.items()}
    ratios = {name: paired(times, seen["dense"]) for name, times in seen.items()}
    peers = tuple(
        Peer(name, None, note=missing[name])
        if name in missing
        else Peer(name, milliseconds[name], ratios[name])
        for name in PEERS
    )
    del ways
    gc.collect()
    label = f"step of {setting.name}, {setting.optimizer}"

    def row(name: str) -> Row:
        own = name in METHODS
        return Row(
            f"{label}: {name}",
            milliseconds[name],
            "ms",
            "dense",
            milliseconds["dense"],
            ratios[name],
            limit=setting.limit if own else None,
            peers=peers if own else (),
            below_peers=own,
        )

    return [row(name) for name in ("A/A", *METHODS)]


def contestant(name: str, model: nn.Module, kind: str, batch: Batch) -> Callable[[], None]:
    """Return what does one training step in the way of a method of gapbench, a peer, or dense.

    Raises:
        NotInstalled: if it is a peer that is not there.
    """
    if name == "torch.nn.utils.prune":
        torch_prune(model)
    elif name == "torch.ao.pruning":
        torch_ao(model)
    optimizer = optimizer_of(kind, model)
    step: Callable[[], object] = optimizer.step
    if name in METHODS:
        step = sparsifier_of(name, model, optimizer).step
    elif name == "rigl-torch":
        scheduler = rigl_torch(model, optimizer)

        def step() -> None:
            if scheduler():
                optimizer.step()

    inputs, labels = batch

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        step()

    return train


def sparsifier_of(method: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sparsifier:
    """Return gapbench's part, in an epoch that does not end."""
    return Sparsifier(
        model,
        optimizer,
        method,
        sparsity=0.0 if method == "dense" else SPARSITY,
        epochs=100,
        steps_per_epoch=NEVER,
        initial="random",  # without it the weights are kept until the first step
        **METHODS.get(method, {}),
    )


def memory(make: Callable[[], nn.Module]) -> Row:
    """Return the row of what masks take, by all tensors that a static run adds to a dense one."""
    model = make()
    optimizer = optimizer_of("SGD", model)
    before = storages()
    sparsifier = sparsifier_of("static", model, optimizer)
    added = {at: size for at, size in storages().items() if at not in before}
    masks = {mask.untyped_storage().data_ptr() for mask in sparsifier.masks.values()}
    weights = sum(layer.numel for layer in sparsifier.layers)
    own = sum(size for at, size in added.items() if at in masks) / weights
    rest = sum(added.values()) / weights - own
    note = f"beside them {rest:.2f} for the record of weights that were ever active"
    return Row("memory of masks", own, "bytes a weight", limit=1.0, note=note)


def storages() -> dict[int, int]:
    """Return the bytes of every storage that a living tensor uses, by address."""
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)  # those of other kinds, as of a trace, hold nothing
    found = [thing for thing in gc.get_objects() if type(thing) in kinds]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: trials of small models do, side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main(__doc__, rows)

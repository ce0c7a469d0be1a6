"""The result of a P-GaP worker, and the merge of all results into one model.

A worker hands back the layers that it grew. The merged model takes a tensor that is not prunable
from the worker that grew the preceding layer. A tensor that follows no layer is averaged over the
workers. So no tensor keeps its value from before the round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gapbench.engine.ledger import LedgerState


@dataclass(frozen=True)
class RoundStart:
    """The state from which all branches of a round start."""

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    coverage: dict[str, Any]
    ledger: LedgerState


@dataclass(frozen=True)
class BranchResult:
    """The result of one worker.

    Attributes:
        layers: weights of the layers that the worker grew, pruned again, by name.
        masks: packed masks of these layers.
        others: tensors that are not prunable: the worker's own tensors, and all averaged tensors.
        ledger: cost of the branch.
    """

    layers: dict[str, Tensor]
    masks: dict[str, Tensor]
    others: dict[str, Tensor]
    ledger: LedgerState


def followed_layer(names: Iterable[str], layers: Sequence[str]) -> dict[str, str | None]:
    """Return the prunable layer that each other tensor follows, or None.

    A tensor follows the last layer before it, unless this layer lies in a numbered block and the
    tensor lies outside the block. So the final norm of a pre-norm model follows no layer.

    Args:
        names: the tensors of the model's state, in order.
        layers: names of the prunable parameters.
    """
    prunable = set(layers)
    followed: dict[str, str | None] = {}
    last: str | None = None
    for name in names:
        if name in prunable:
            last = name
        else:
            followed[name] = last if last is not None and _same_block(name, last) else None
    return followed


def _same_block(name: str, layer: str) -> bool:
    own, other = name.split(".")[:-1], layer.split(".")[:-1]
    shared = 0
    while shared < min(len(own), len(other)) and own[shared] == other[shared]:
        shared += 1
    return not any(part.isdigit() for part in other[shared:-1])


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters and buffers in state-dict order; tied tensors appear once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if torch.is_tensor(value):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in tensors(model).items()}


@torch.no_grad()
def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into the model's tensors, which keep their address and memory format."""
    own = tensors(model)
    for name, value in state.items():
        own[name].copy_(value)


def merged(
    results: Sequence[BranchResult], followed: Mapping[str, str | None]
) -> dict[str, Tensor]:
    """Return the tensors of the model that results from merging one round."""
    state: dict[str, Tensor] = {}
    for result in results:
        state.update(result.layers)
        state.update((n, v) for n, v in result.others.items() if followed[n] is not None)
    for name, layer in followed.items():
        if layer is None:
            state[name] = _average([result.others[name] for result in results])
    return state


def _average(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return torch.stack(list(values)).amax(0)  # a counter: what the longest worker has seen
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)

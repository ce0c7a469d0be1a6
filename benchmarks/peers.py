"""Packages that train with masks too, each used as its own documentation says."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.sparsity.layers import prunable
from gapbench.sparsity.masks import random_mask, zeros_of

SPARSITY = 0.9
NEVER = 10**9  # steps


class NotInstalled(Exception):
    """A peer cannot be imported; the message is for the table."""


def rigl_torch(model: nn.Module, optimizer: torch.optim.Optimizer, every: int = NEVER) -> Any:
    """Return rigl-torch's scheduler over all weights but the first, which it leaves dense.

    Raises:
        NotInstalled: if the package is not there.
    """
    load_torchvision()  # which it imports, and which may need help
    try:
        scheduler: Any = importlib.import_module("rigl_torch.RigL").RigLScheduler
    except ImportError as error:
        raise NotInstalled("not installed") from error
    return scheduler(
        model,
        optimizer,
        dense_allocation=1 - SPARSITY,
        T_end=NEVER,
        delta=every,
        ignore_linear_layers=False,
    )


def torch_prune(model: nn.Module) -> None:
    """Hook random masks into every prunable layer by torch.nn.utils.prune."""
    for module, name, _ in _layers(model):
        prune.random_unstructured(module, name, SPARSITY)  # type: ignore[no-untyped-call]


def torch_ao(model: nn.Module) -> None:
    """Parametrise every prunable layer by torch.ao.pruning, and give it a random mask.

    Raises:
        NotInstalled: if this version of torch is without it.
    """
    try:
        pruning: Any = importlib.import_module("torch.ao.pruning")
    except ImportError as error:
        raise NotInstalled("not in this torch") from error
    sparsifier = pruning.WeightNormSparsifier()
    sparsifier.prepare(model, [{"tensor_fqn": name} for name in prunable(model)])
    for group in sparsifier.groups:
        mask = group["module"].parametrizations.weight[0].mask
        mask.copy_(_mask(mask))


def _layers(model: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    found = []
    for full in prunable(model):
        owner, _, name = full.rpartition(".")
        module = model.get_submodule(owner)
        found.append((module, name, getattr(module, name)))
    return found


def _mask(like: Tensor) -> Tensor:
    keep = like.numel() - zeros_of(like.numel(), 1 - SPARSITY)
    return random_mask(tuple(like.shape), keep, torch.Generator().manual_seed(0))

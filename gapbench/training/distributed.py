"""Data parallelism: this process's rank, and values that all ranks agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's rank, and the number of ranks of the trial."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Return the ranks of the initialised process group, or a world of one process."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def agree(self, value: T) -> T:
        """Return rank 0's `value` on every rank."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over all ranks."""
        if self.world == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world


def replicated(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Wrap `model` to average its gradients over ranks; return it as it is for one rank."""
    if ranks.world == 1:
        return model
    return nn.parallel.DistributedDataParallel(model)

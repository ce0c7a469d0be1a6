"""A check that all ranks of a data-parallel run have equal masks."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist
from torch import Tensor

from gapbench.sparsity.masks import digest


def check_equal(masks: Mapping[str, Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Compare a digest of `masks` over all ranks; without a process group do nothing.

    Args:
        masks: the masks of this rank.
        group: the ranks that have the model; all ranks if None.

    Raises:
        RuntimeError: if a rank's masks differ.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1):
        return
    digests: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(digests, digest(masks), group=group)
    odd = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if odd:
        raise RuntimeError(f"masks differ between ranks: rank {odd[0]} does not agree with rank 0")

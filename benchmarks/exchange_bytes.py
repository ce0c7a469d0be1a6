"""Bytes of a sparse file and of what a branch of P-GaP hands back, beside what they must hold.

    python -m benchmarks.exchange_bytes [--quick] [--json FILE]

The bound is the weights inside the masks as they are, 4 bytes each, and the entropy of masks of
which only the number of active weights in each layer is known. Counted are whole files, heads and
names included, of the layers that are pruned; what is not pruned is in either as it is, and would
only bring the ratio closer to 1. A branch hands back one partition of four. Weights are normal
noise, pruned by magnitude: where trained masks cluster, a cleverer code could go below the bound.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.models import resnet50
from benchmarks.rows import Peer, Row, main
from gapbench.engine import exchange
from gapbench.engine.ledger import LedgerState
from gapbench.engine.rounds import BranchResult
from gapbench.execution import export
from gapbench.plan.partitions import partition
from gapbench.plan.phases import Layer
from gapbench.sparsity.layers import prunable
from gapbench.sparsity.masks import pack, top_mask

MOST = 1.05
DENSITIES = (0.2, 0.1, 0.05)
VALUE = torch.float32.itemsize
WORKERS = 4
Shapes = dict[str, tuple[int, ...]]
# a handful of integers in every result
LEDGER: LedgerState = {"uses": {}, "steps": 0, "active_steps": 0, "peak_active": 0}


def rows(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    models: dict[str, Callable[[], Shapes]] = {
        "ResNet-50": resnet50_shapes,
        "Transformer-big": transformer_big_shapes,
    }
    if quick:
        models = {"four layers": lambda: dict.fromkeys("abcd", (512, 256))}
    return [row for name, shapes in models.items() for row in rows_of(name, shapes())]


def resnet50_shapes() -> Shapes:
    """Return the pruned layers of ImageNet's ResNet-50."""
    model = resnet50()
    return {name: tuple(model.get_parameter(name).shape) for name in prunable(model)}


def transformer_big_shapes() -> Shapes:
    """Return the pruned layers of the translation Transformer: 6 and 6 layers, 1024 wide."""
    shapes: Shapes = {}
    for side, attentions in (("encoder", ("self",)), ("decoder", ("self", "encoder"))):
        for number in range(6):
            layer = f"{side}.layers.{number}"
            for attention in attentions:
                for part in ("q", "k", "v", "out"):
                    shapes[f"{layer}.{attention}_attn.{part}_proj.weight"] = (1024, 1024)
            shapes[f"{layer}.fc1.weight"] = (4096, 1024)
            shapes[f"{layer}.fc2.weight"] = (1024, 4096)
    return shapes


def rows_of(model: str, shapes: Shapes) -> list[Row]:
    """Return the rows of one model at every density."""
    generator = torch.Generator().manual_seed(0)
    dense = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    layers = tuple(Layer(name, shape) for name, shape in shapes.items())
    first = partition(layers, WORKERS, "contiguous", random.Random(0))[0]
    found = []
    for density in DENSITIES:
        kept = {name: round(density * weight.numel()) for name, weight in dense.items()}
        masks = {name: top_mask(weight.abs(), kept[name]) for name, weight in dense.items()}
        weights = {name: weight.masked_fill(~masks[name], 0) for name, weight in dense.items()}
        at = f"{model}, {density:.0%} of its weights".replace("%", " %")
        file = len(export.sparse(weights, masks, {"key": "0" * 16, "label": model}))
        found.append(_row(f"sparse file of {at}", file, masks))
        part = {name: mask for name, mask in masks.items() if name in first}
        found.append(_row(f"a branch's result of {at}", handed_back(weights, part), part))
    return found


def handed_back(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> int:
    """Return the bytes that a branch writes which grew the layers of `masks`."""
    layers = {name: weights[name] for name in masks}
    packed = {name: pack(mask) for name, mask in masks.items()}
    result = BranchResult(layers, packed, {}, LEDGER)
    file = io.BytesIO()
    torch.save(exchange.encode(result), file)
    return file.tell()


def _row(what: str, size: float, masks: Mapping[str, Tensor]) -> Row:
    bound = sum(_bound(mask.numel(), int(mask.sum())) for mask in masks.values())
    numel = sum(mask.numel() for mask in masks.values())
    active = sum(int(mask.sum()) for mask in masks.values())
    forms = {
        "dense": numel * VALUE,
        "bit masks": active * VALUE + numel / 8,
        "32-bit places": active * (VALUE + 4),
    }
    peers = tuple(Peer(name, bytes_ / 1e6, bytes_ / bound) for name, bytes_ in forms.items())
    return Row(
        what, size / 1e6, "MB", "entropy bound", bound / 1e6, size / bound, MOST, peers=peers
    )


def _bound(numel: int, active: int) -> float:
    shares = [share for share in (active / numel, 1 - active / numel) if share > 0]
    return active * VALUE - numel * sum(share * math.log2(share) for share in shares) / 8


if __name__ == "__main__":
    main(__doc__, rows)

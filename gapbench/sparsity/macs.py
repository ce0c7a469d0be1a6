"""Multiply-accumulates (MACs) of one forward pass, by parameter."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

_ADDS_FIRST_OPERAND = (torch.ops.aten.addmm, torch.ops.aten.baddbmm)


@dataclass(frozen=True)
class ForwardCost:
    """MACs of one forward pass of one example.

    Attributes:
        macs: MACs by parameter name; 0 for a parameter of no convolution or matrix product.
        other: MACs of products of activations with activations, such as attention scores.
        outputs: number of output elements of convolutions and of products with parameters.
    """

    macs: dict[str, int]
    other: int
    outputs: int

    @property
    def total(self) -> int:
        """All MACs of the dense model."""
        return sum(self.macs.values()) + self.other


def forward_macs(model: nn.Module, inputs: Sequence[Any]) -> ForwardCost:
    """Count the MACs of `model(*inputs)` in evaluation mode by parameter.

    A copy of the model runs on the meta device, which computes shapes alone. A dispatch mode looks
    up the storage of every operand. So packed, functional and tied weights, which module hooks
    would miss, are counted, and the model itself is not called. If the model branches on a value
    (is anything padded?), which the meta device does not know, the condition counts as false.

    Args:
        model: a model on any device, meta included.
        inputs: positional arguments of one forward pass of one example; tensors may be on meta.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        twin = _meta_twin(model)
        arguments = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), tuple(inputs))
        with torch.device("meta"), _Counter(dict(twin.named_parameters())) as counter:
            twin(*arguments)
    return ForwardCost(counter.macs, counter.other, counter.outputs)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the MACs of every product that is computed under this mode.

    A tensor that is computed from one parameter alone (a cast, a copy) counts as this parameter.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = dict.fromkeys(parameters, 0)
        self.other = 0
        self.outputs = 0
        self._owner = {_storage(tensor): name for name, tensor in parameters.items()}
        self._alive: list[Tensor] = []  # an address stands for a storage only while that lives

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 0
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            self._inherit(out, (args, kwargs))
        else:
            flops = int(formula(*args, **kwargs, out_val=out))
            self._count(func.overloadpacket, args, flops // 2, out)  # two a MAC
        return out

    def _count(self, product: Any, args: tuple[Any, ...], macs: int, out: Any) -> None:
        factors = args[1:3] if product in _ADDS_FIRST_OPERAND else args[:2]
        owners = [self._owner.get(_storage(factor)) for factor in factors]
        owner = owners[1] or owners[0]  # learned inputs multiply weights: those come second
        if owner is None:
            self.other += macs
        else:
            self.macs[owner] += macs
            self.outputs += out.numel()

    def _inherit(self, out: Any, operands: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(operands) if isinstance(leaf, Tensor)]
        owners = {self._owner.get(_storage(tensor)) for tensor in tensors}
        owner = owners.pop() if len(owners) == 1 else None
        for leaf in tree_leaves(out):
            if owner is not None and isinstance(leaf, Tensor):
                self._owner.setdefault(_storage(leaf), owner)
                self._alive.append(leaf)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _meta_twin(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device in evaluation mode, without hooks."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        meta = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(meta, parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin.eval()

"""Linear layers that multiply by what is not zero: CSR on CPUs, 2:4 on GPUs that have it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gapbench.errors import UserError

MOST = 0.2  # density; of more, a dense product is faster on the CPUs that were tried


class CsrLinear(nn.Module):
    """A linear layer whose weight is a CSR tensor, for inference.

    Args:
        weight: of shape (outputs, inputs), dense or CSR.
        bias: of shape (outputs,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        with warnings.catch_warnings():  # torch calls its CSR tensors a beta
            warnings.simplefilter("ignore", UserWarning)
            self.weight = weight.detach().to_sparse_csr()
        self.bias = None if bias is None else bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs @ weight.T + bias, for inputs of shape (..., inputs)."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        # the sparse factor first: `linear` with a CSR weight takes five times as long
        outputs = torch.sparse.mm(self.weight, flat.t()).t()
        if self.bias is not None:
            outputs = outputs + self.bias
        shaped: Tensor = outputs.reshape(*inputs.shape[:-1], self.weight.shape[0])
        return shaped


def to_csr(model: nn.Module, most: float = MOST) -> list[str]:
    """Give every linear layer of a low density a CSR weight; the model can only infer then.

    Args:
        model: changed in place.
        most: density up to which a layer is changed.

    Returns:
        names of the layers that were.
    """
    changed = []
    for name, owner, last, layer in list(_linear_layers(model)):
        if int(layer.weight.count_nonzero()) <= most * layer.weight.numel():
            setattr(owner, last, CsrLinear(layer.weight, layer.bias))
            changed.append(name)
    return changed


def to_semi_structured(model: nn.Module) -> list[str]:
    """Give every linear layer that has 2:4 sparsity torch's semi-structured weight.

    Args:
        model: on a GPU of compute capability 8.0 or more, in float16 or bfloat16; changed in place.

    Returns:
        names of the layers that were changed.

    Raises:
        UserError: if there is no such GPU.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        raise UserError("semi-structured weights need a GPU of compute capability 8.0 or more")
    changed = []
    for name, _, _, layer in list(_linear_layers(model)):
        groups = layer.weight.reshape(-1, 4) if layer.in_features % 4 == 0 else None
        if groups is not None and bool((groups.count_nonzero(1) <= 2).all()):
            weight = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
            layer.weight = nn.Parameter(weight, requires_grad=False)
            changed.append(name)
    return changed


def load_csr(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load a state dict in which weights of linear layers are CSR tensors; return the model.

    Raises:
        UserError: if a CSR weight belongs to no linear layer of the model.
        RuntimeError: if names or shapes do not fit, as from `load_state_dict`.
    """
    layers = {f"{name}.weight": (owner, last) for name, owner, last, _ in _linear_layers(model)}
    dense = {n: tensor for n, tensor in state.items() if tensor.layout != torch.sparse_csr}
    for name in state.keys() - dense.keys():
        if name not in layers:
            raise UserError(f"{name}: no linear layer of the model has this weight")
        owner, last = layers[name]
        setattr(owner, last, CsrLinear(state[name], dense.pop(f"{name[:-7]}.bias", None)))
    model.load_state_dict(dense)
    return model


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """Yield the name of each linear layer, the module that has it, its name there, and itself."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            outer, _, last = name.rpartition(".")
            if last:
                yield name, model.get_submodule(outer), last, module

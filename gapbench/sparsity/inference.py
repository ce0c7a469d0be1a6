"""Linear layers that skip zero weights: CSR on CPUs, 2:4 on GPUs that support it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gapbench.errors import UserError

MOST = 0.2  # density; of more, a dense product is faster on the CPUs that were tried


class CsrLinear(nn.Module):
    """A linear layer for inference with a CSR weight; weight and bias are buffers.

    Args:
        weight: dense or CSR tensor of shape (outputs, inputs).
        bias: tensor of shape (outputs,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        with warnings.catch_warnings():  # torch calls its CSR tensors a beta
            warnings.simplefilter("ignore", UserWarning)
            self.register_buffer("weight", weight.detach().to_sparse_csr())
        self.register_buffer("bias", None if bias is None else bias.detach())

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
    """Give every linear layer of low density a CSR weight; the model is then for inference only.

    Args:
        model: the model, changed in place.
        most: maximum density of a layer that is changed.

    Returns:
        names of the changed layers.
    """
    changed = []
    for name, owner, last, layer in list(_linear_layers(model)):
        if int(layer.weight.count_nonzero()) <= most * layer.weight.numel():
            setattr(owner, last, CsrLinear(layer.weight, layer.bias))
            changed.append(name)
    return changed


def to_semi_structured(model: nn.Module) -> list[str]:
    """Give every linear layer with 2:4 sparsity a semi-structured weight of torch.

    Args:
        model: a float16 or bfloat16 model on a GPU of compute capability 8.0 or more; changed in
            place. Layers whose shape is not a multiple of (32, 64) stay as they are.

    Returns:
        names of the changed layers.

    Raises:
        UserError: if there is no such GPU.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        raise UserError("semi-structured weights need a GPU of compute capability 8.0 or more")
    changed = []
    for name, _, _, layer in list(_linear_layers(model)):
        if layer.out_features % 32 or layer.in_features % 64:  # what torch's kernels ask for
            continue
        if bool((layer.weight.reshape(-1, 4).count_nonzero(1) <= 2).all()):
            weight = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
            layer.weight = nn.Parameter(weight, requires_grad=False)
            changed.append(name)
    return changed


def load_csr(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load a state dict with CSR weights of linear layers into a model; return the model.

    Raises:
        UserError: if names or shapes do not match; the model is then unchanged.
    """
    layers = {f"{place[0]}.weight": place for place in _linear_layers(model)}
    rows = {n: tensor for n, tensor in state.items() if tensor.layout == torch.sparse_csr}
    dense = {n: tensor for n, tensor in state.items() if n not in rows}
    for name, tensor in rows.items():
        if name not in layers or layers[name][3].weight.shape != tensor.shape:
            raise UserError(f"{name}: no linear layer of the model has this weight")
    own = {n: t.shape for n, t in model.state_dict().items() if n not in rows}
    if odd := sorted(own.keys() ^ dense.keys()) or [n for n in own if dense[n].shape != own[n]]:
        raise UserError(f"{odd[0]}: is only in the model, only in the state, or of another shape")
    model.load_state_dict(dense, strict=False)
    for name, tensor in rows.items():
        _, owner, last, layer = layers[name]
        weight = tensor.to(layer.weight.device, layer.weight.dtype)
        setattr(owner, last, CsrLinear(weight, layer.bias))
    return model


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """Yield the name of each linear layer, the module that has it, its name there, and itself."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            outer, _, last = name.rpartition(".")
            if last:
                yield name, model.get_submodule(outer), last, module

"""Which tensors of a model are prunable. Imports torch only where a model is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gapbench.errors import UserError, choose
from gapbench.methods.plan import Layer, Layers

if TYPE_CHECKING:
    from torch import nn


def prunable(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all convolution and linear weights, in model order.

    Biases, norms and embeddings are never prunable, nor is a weight that is tied to an embedding;
    other tied weights are named once. The packed projection of `nn.MultiheadAttention` counts.
    """
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    embeddings = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    found: dict[int, str] = {}
    for prefix, module in model.named_modules():
        keys: tuple[str, ...] = ()
        if isinstance(module, (nn.Linear, _ConvNd)):
            keys = ("weight",)
        elif isinstance(module, nn.MultiheadAttention):
            keys = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        for key in keys:
            weight = getattr(module, key)
            if weight is not None and id(weight) not in embeddings:
                found.setdefault(id(weight), f"{prefix}.{key}" if prefix else key)
    return tuple(found.values())


def layers_of(model: nn.Module, names: Sequence[str]) -> Layers:
    """Return the named parameters of a model as layers.

    Raises:
        UserError: if a name is no parameter of the model, or none is given.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name not in parameters:
            raise UserError(choose("layer", name, parameters))
    if not names:
        raise UserError(
            "layers: the model has no prunable layer (convolution or linear weight)"
        )
    return tuple(Layer(name, tuple(parameters[name].shape)) for name in names)

"""The prunable tensors of a model. Imports torch only for a given model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gapbench.errors import UserError, choose
from gapbench.plan.phases import Layer, Layers

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Layer", "Layers", "layers_of", "prunable"]


def prunable(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all convolution and linear weights, in model order.

    Biases, norms, embeddings and weights that are tied to an embedding are never prunable. Other
    tied weights appear once, under the name from `named_parameters`. The packed projection of
    `nn.MultiheadAttention` is prunable.
    """
    matrices = {id(weight) for module in model.modules() for weight in _matrices(module)}
    matrices -= embeddings(model)
    return tuple(name for name, parameter in model.named_parameters() if id(parameter) in matrices)


def embeddings(model: nn.Module) -> set[int]:
    """Return the `id` of every embedding weight."""
    from torch import nn

    kinds = (nn.Embedding, nn.EmbeddingBag)
    return {id(module.weight) for module in model.modules() if isinstance(module, kinds)}


def layers_of(model: nn.Module, names: Sequence[str]) -> Layers:
    """Return the named parameters of a model as layers.

    Raises:
        UserError: if a name is no parameter of the model, or no name is given.
    """
    parameters = dict(model.named_parameters())
    if not names:
        raise UserError("layers: the model has no prunable layer (convolution or linear weight)")
    for name in names:
        if name not in parameters:
            raise UserError(choose("layer", name, parameters))
    return tuple(Layer(name, tuple(parameters[name].shape)) for name in names)


def _matrices(module: nn.Module) -> Iterator[Tensor | None]:
    """Yield the module's own weights that multiply activations."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if isinstance(module, (nn.Linear, _ConvNd)):
        yield module.weight
    elif isinstance(module, nn.MultiheadAttention):
        yield module.in_proj_weight
        yield from (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)

"""The choice of the parameters that are pruned, and the matrices that stay dense."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

import torch
from torch import nn

from gapbench.errors import UserError, choose
from gapbench.sparsity.layers import embeddings, prunable

Chosen = Sequence["str | nn.Module"] | Callable[[str, nn.Parameter], bool] | Mapping[str, float]
NOTED_SHARE = 0.05  # of a model's weights: of more that stay dense a warning tells


def chosen_names(model: nn.Module, layers: Chosen | None) -> tuple[str, ...]:
    """Return the names of the requested parameters, in model order.

    Args:
        model: the model.
        layers: names (shell wildcards are allowed) or modules; a function of name and parameter; or
            a mapping of names to densities. None stands for all trained weights of linear and
            convolution layers.

    Raises:
        UserError: naming an entry that matches no parameter, or a frozen parameter.
    """
    params = dict(model.named_parameters())
    if layers is None:
        return tuple(name for name in prunable(model) if params[name].requires_grad)
    if callable(layers):
        names = {name for name, param in params.items() if layers(name, param)}
        frozen = {name for name in names if not params[name].requires_grad}
        return tuple(name for name in params if name in names - frozen)
    if isinstance(layers, str):
        layers = [layers]
    if not isinstance(layers, Iterable):
        raise UserError(f"layers: {layers!r} is not a name, pattern, module or function")
    picked = [name for asked in layers for name in _named(model, params, asked)]
    for name in picked:
        if not params[name].requires_grad:
            raise UserError(f"layers: {name} is frozen (requires_grad is False): leave it out")
        if picked.count(name) > 1 and not _by_pattern(layers):
            raise UserError(f"layers: {name} is given twice")
    return tuple(name for name in params if name in set(picked))


def densities_of(names: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Return every layer's density from a mapping of names or patterns; the last match counts.

    Raises:
        UserError: if a layer has no density, or a density is outside (0, 1].
    """
    if not isinstance(given, Mapping) or not all(isinstance(pattern, str) for pattern in given):
        raise UserError(
            f"distribution: {given!r} is not a name, a function or a mapping of densities"
        )
    found: dict[str, float] = {}
    for name in names:
        fitting = [value for pattern, value in given.items() if fnmatchcase(name, pattern)]
        if not fitting:
            raise UserError(
                f"distribution: {name} has no density: name the layer, or give a pattern such as *"
            )
        density = fitting[-1]
        if not isinstance(density, Real) or not 0 < density <= 1:
            raise UserError(f"distribution: {density!r} of {name} is not a density in (0, 1]")
        found[name] = float(density)
    return found


def warn_of_dense(model: nn.Module, names: Sequence[str], asked: object) -> None:
    """Warn once of matrices that stay dense without a request, with their share of the weights."""
    if asked is not None:
        return
    left = left_dense(model, names)
    total = sum(param.numel() for param in model.parameters())
    share = sum(left.values()) / max(1, total)
    if share > NOTED_SHARE:
        shown = ", ".join(list(left)[:3]) + (", ..." if len(left) > 3 else "")
        warnings.warn(
            f"{share:.0%} of the model's weights stay dense: {shown}; layers= names the layers to "
            "prune, sparsifier.summary() lists all layers",
            stacklevel=3,
        )


def left_dense(model: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Return the sizes of trained matrices that stay dense, without embeddings, by name."""
    embedded = embeddings(model)
    return {
        name: param.numel()
        for name, param in model.named_parameters()
        if name not in names and param.requires_grad and param.dim() >= 2
        if id(param) not in embedded
    }


def _by_pattern(layers: Any) -> bool:
    return any(not isinstance(asked, str) or any(c in asked for c in "*?[") for asked in layers)


def _named(
    model: nn.Module, params: Mapping[str, nn.Parameter], asked: str | nn.Module
) -> list[str]:
    if isinstance(asked, nn.Module):
        known = {id(params[name]): name for name in prunable(model)}
        own = [known[id(param)] for param in asked.parameters() if id(param) in known]
        if not own:
            kind = type(asked).__name__
            raise UserError(f"layers: {kind} has no linear or convolution weight of this model")
        return own
    if not isinstance(asked, str):
        raise UserError(f"layers: {asked!r} is not a name, pattern, module or function")
    if asked in params:
        return [asked]
    fitting = [name for name in prunable(model) if fnmatchcase(name, asked)]
    if not fitting:
        raise UserError(choose("layer", asked, params))
    return [name for name in fitting if params[name].requires_grad]


def require_usable(name: str, param: nn.Parameter) -> None:
    """Check that a parameter can be pruned.

    Raises:
        UserError: if the parameter is lazy, without data, spread over devices, complex or empty.
    """
    if isinstance(param, nn.parameter.UninitializedParameter):
        raise UserError(f"layers: {name} has no shape yet: run the model once first")
    if param.is_meta:
        raise UserError(f"layers: {name} is on the meta device: it has no values to prune")
    if type(param.data).__name__ == "DTensor":
        raise UserError(f"layers: {name} is a DTensor: shards of a layer cannot be pruned here")
    if param.is_complex() or not torch.is_floating_point(param):
        raise UserError(f"layers: {name} is of {param.dtype}: give real floating-point weights")
    if param.dim() < 2:
        raise UserError(f"layers: {name} is a vector: give weights of 2 or more axes")
    if param.numel() == 0:
        raise UserError(f"layers: {name} is empty: leave the layer out")

"""Weights that a plan's transform computes from latent weights; the optimiser moves the latter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gapbench.engine.masked import MaskedWeights
from gapbench.errors import UserError
from gapbench.plan.phases import Transform
from gapbench.sparsity.counts import Counts
from gapbench.sparsity.transform import Latent, transforms


class Transformed:
    """Keeps latent weights beside a model whose parameters are the transformed weights.

    During an optimiser step the latent weights replace the transformed weights. Their gradients
    follow from the gradients of the transformed weights by the chain rule. So the model itself is
    sparse at any time, and forward passes need no hook.

    The transform's own parameters form a parameter group of the optimiser until `withdraw`.

    Args:
        transform: the plan's transform.
        weights: the model's weights; positions that the transform maps to 0 become masked.
        counts: final kept counts of the layers, for transforms that select weights.

    Raises:
        UserError: if the transform is unknown, or the optimiser evaluates the model by itself.
    """

    def __init__(self, transform: Transform, weights: MaskedWeights, counts: Counts) -> None:
        if isinstance(weights.optimizer, torch.optim.LBFGS):
            raise UserError(
                "optimizer: LBFGS evaluates the model several times per step, which "
                f"{transform.name} does not allow"
            )
        self._apply = transforms[transform.name]
        self._weights = weights
        self._counts = counts
        self.latents = {name: p.detach().clone() for name, p in weights.params.items()}
        self.parameters: dict[str, nn.Parameter] = {}
        if transform.initial is not None:
            value = transform.initial
            self.parameters = {
                name: nn.Parameter(torch.full((), value, dtype=p.dtype, device=p.device))
                for name, p in weights.params.items()
            }
            weights.optimizer.add_param_group(self._group(transform.decay))

    def _group(self, decay: float | None) -> dict[str, Any]:
        """Return a parameter group with the weights' settings, such as rate and decay."""
        first = next(iter(self._weights.params.values()))
        groups = self._weights.optimizer.param_groups
        owner = next(g for g in groups if any(param is first for param in g["params"]))
        group = {name: value for name, value in owner.items() if name != "params"}
        own = {} if decay is None else {"weight_decay": decay}
        return {**group, **own, "params": list(self.parameters.values())}

    def withdraw(self) -> None:
        """Remove the transform's own parameters from the optimiser."""
        mine = set(map(id, self.parameters.values()))
        groups = self._weights.optimizer.param_groups
        groups[:] = [g for g in groups if not mine & set(map(id, g["params"]))]
        for own in self.parameters.values():
            self._weights.optimizer.state.pop(own, None)

    def pull_back(self) -> None:
        """Replace the transformed weights by the latent weights and their gradients."""
        for name, param in self._weights.params.items():
            if param.grad is None:
                continue
            weight = self.latents[name].requires_grad_()
            own = self.parameters.get(name)
            with torch.enable_grad():
                made = self._of(name, weight)
            inputs = [weight] if own is None else [weight, own]
            gradients = torch.autograd.grad(made, inputs, param.grad)
            param.grad = gradients[0]
            if own is not None:
                own.grad = gradients[1]
        with torch.no_grad():
            for name, param in self._weights.params.items():
                param.copy_(self.latents[name].detach_())

    @torch.no_grad()
    def apply(self) -> None:
        """Store the model's weights as the latent weights, and transform them."""
        masks = {}
        for name, param in self._weights.params.items():
            self.latents[name].copy_(param)
            param.copy_(self._of(name, self.latents[name]))
            masks[name] = param != 0
        for own in self.parameters.values():
            own.grad = None
        self._weights.set_masks(masks)

    def _of(self, name: str, weight: Tensor) -> Tensor:
        def select(scores: Tensor) -> Tensor:
            return self._weights.pattern.select(scores, self._counts.of(name))

        return self._apply(Latent(weight, self.parameters.get(name), select))

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the latent weights and the transform's parameters."""
        own = {name: value.detach() for name, value in self.parameters.items()}
        return {"latents": dict(self.latents), "parameters": own}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load a state that `state_dict` returned."""
        for name, value in state["latents"].items():
            self.latents[name].copy_(value)
        for name, value in state["parameters"].items():
            self.parameters[name].copy_(value)

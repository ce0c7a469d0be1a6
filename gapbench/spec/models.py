"""Properties of a task's model that need no weights: shapes, parameters, cost. Built once."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from gapbench.plan.phases import Layers, Plan
from gapbench.tasks.task import Task, tasks

if TYPE_CHECKING:
    from torch import nn

    from gapbench.sparsity.cost import ForwardCost, PlanCost
    from gapbench.sparsity.counts import Counts


WIDTH = "width"  # the option of tasks whose networks can be narrowed


@cache
def task_options_model(name: str) -> type[BaseModel]:
    """Return the strict model of a task's options, made from the signature of its class.

    Raises:
        UserError: if the task is unknown.
    """
    build = tasks[name].__init__
    hints = get_type_hints(build, include_extras=True)
    fields: dict[str, Any] = {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(build).parameters.items()
        if key in hints and parameter.default is not parameter.empty
    }
    config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    return create_model(f"{name}_task_options", __config__=config, **fields)


@dataclass(frozen=True, eq=False)
class Proxy:
    """A task, and the properties of its model without weights."""

    task: Task

    @cached_property
    def model(self) -> nn.Module:
        """The model on the meta device."""
        from gapbench.spec.meta import build_on_meta

        return build_on_meta(self.task)

    @cached_property
    def parameters(self) -> int:
        """Number of all parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @cached_property
    def cost(self) -> ForwardCost:
        """Cost of one forward pass of the dense model."""
        from gapbench.spec.meta import cost_on_meta

        return cost_on_meta(self.task, self.model)


@cache
def layers_of_trial(proxy: Proxy, first_layer: str) -> Layers:
    """Return the layers that a trial prunes, without a dense input layer."""
    from gapbench.sparsity.layers import layers_of
    from gapbench.training.setup import prunable_layers

    return layers_of(proxy.model, prunable_layers(proxy.task, proxy.model, first_layer))


@cache
def counts_of_trial(
    proxy: Proxy, first_layer: str, distribution: str, sparsity: float, pattern: str
) -> Counts | None:
    """Return the kept counts of every layer, or None if magnitudes decide the counts."""
    from gapbench.sparsity.counts import Counts
    from gapbench.sparsity.distributions import densities, distributions
    from gapbench.sparsity.pattern import pattern_of

    layers = layers_of_trial(proxy, first_layer)
    if distributions[distribution].by_magnitude:
        return None
    shapes = {layer.name: layer.shape for layer in layers}
    return Counts(layers, densities(distribution, shapes, sparsity), pattern_of(pattern))


@cache
def cost_of_plan(
    proxy: Proxy,
    plan: Plan,
    first_layer: str,
    distribution: str,
    sparsity: float,
    pattern: str,
    batch_size: int,
) -> PlanCost | None:
    """Return a plan's training cost, or None if the cost is known only after the run."""
    from gapbench.sparsity.cost import plan_cost

    counts = counts_of_trial(proxy, first_layer, distribution, sparsity, pattern)
    if counts is None or plan.budget != "layers" or plan.transform is not None:
        return None
    return plan_cost(plan, counts, proxy.cost, proxy.task.steps_per_epoch(batch_size))


def proxy(name: str, options: Mapping[str, Any]) -> Proxy:
    """Return the proxy of a task with these options; equal options share one proxy."""
    return _proxy(name, json.dumps(dict(options), sort_keys=True))


@cache
def _proxy(name: str, options: str) -> Proxy:
    return Proxy(tasks[name](**json.loads(options)))

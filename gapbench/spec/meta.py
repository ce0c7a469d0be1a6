"""Models on the meta device, whose tensors have shapes but no storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gapbench.sparsity.cost import ForwardCost, forward_macs
from gapbench.tasks.task import Task

_DRAWS = {Tensor.normal_, Tensor.uniform_}


class _WithoutDraws(TorchFunctionMode):
    """Skips random numbers: meta tensors have no values, and torch would load its compiler."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return args[0] if func in _DRAWS else func(*args, **(kwargs or {}))


def build_on_meta(task: Task) -> nn.Module:
    """Return the task's model without weights."""
    with _WithoutDraws(), torch.device("meta"):
        return task.build_model()


def cost_on_meta(task: Task, model: nn.Module) -> ForwardCost:
    """Return the cost of one forward pass of the dense model over one example."""
    with torch.device("meta"):
        inputs = task.example_inputs()
    return forward_macs(model, inputs)

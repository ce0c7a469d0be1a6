"""ResNet-50, the model that most of the reference values are about."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gapbench.compat.torchvision_ops import load_torchvision
from gapbench.plan.phases import Layers
from gapbench.sparsity.cost import ForwardCost, forward_macs
from gapbench.sparsity.layers import layers_of, prunable


@dataclass(frozen=True)
class Reference:
    model: nn.Module
    layers: Layers
    cost: ForwardCost

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {layer.name: layer.shape for layer in self.layers}

    @property
    def behind_conv1(self) -> Layers:
        """All layers but the first, which uniform rows leave dense and outside of the budget."""
        return self.layers[1:]


@pytest.fixture(scope="session")
def resnet50() -> Reference:
    with torch.device("meta"):
        model = load_torchvision("torchvision.models").resnet50(weights=None)
        image = torch.zeros(1, 3, 224, 224)
    return Reference(model, layers_of(model, prunable(model)), forward_macs(model, [image]))

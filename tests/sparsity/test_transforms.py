"""Transforms: exact values and gradients of small tensors."""

from __future__ import annotations

import math

import torch

from gapbench.sparsity.transform import Latent, transforms

WEIGHT = [1.0, -0.75, 0.2, -0.125]


def latent(parameter=None):
    weight = torch.tensor(WEIGHT, dtype=torch.float64, requires_grad=True)
    own = None if parameter is None else torch.tensor(parameter, requires_grad=True).double()
    if own is not None:
        own.retain_grad()
    return Latent(weight, own, lambda scores: scores >= 0.5)


def test_a_soft_threshold_shrinks_what_is_above_it():
    one = latent(math.log(1 / 3))  # sigmoid(s) = 1/4, and its derivative 3/16
    made = transforms["soft_threshold"](one)
    torch.testing.assert_close(
        made, torch.tensor([0.75, -0.5, 0.0, 0.0]).double(), atol=1e-7, rtol=0
    )
    made.backward(torch.tensor([1.0, 2.0, 4.0, 8.0]).double())
    assert one.weight.grad.tolist() == [1, 2, 0, 0]
    assert math.isclose(one.parameter.grad.item(), -3 / 16 * (1 - 2), rel_tol=1e-6)


def test_gradients_go_straight_through_to_every_weight():
    one = latent()
    made = transforms["straight_through"](one)
    assert made.tolist() == [1.0, -0.75, 0.0, 0.0]
    made.backward(torch.tensor([1.0, 2.0, 4.0, 8.0]).double())
    assert one.weight.grad.tolist() == [1, 2, 4, 8]

"""Clipping: the norm is that of the weights that exist, and gradients elsewhere are kept."""

from __future__ import annotations

import pytest
import torch

from gapbench.engine.sparsifier import Sparsifier
from tests.small import STEPS, loss_of_step, optimizer_of, small_model


@pytest.fixture
def trained():
    model = small_model()
    sparsifier = Sparsifier(
        model, optimizer_of(model, "sgd"), "rigl", sparsity=0.8, epochs=4, steps_per_epoch=STEPS
    )
    loss_of_step(model, 0).backward()
    return model, sparsifier.weights


def norm_of_existing(model, weights):
    masks = {id(weights.params[name]): mask for name, mask in weights.masks.items()}
    parts = [p.grad[masks[id(p)]] if id(p) in masks else p.grad.flatten()
             for p in model.parameters()]  # fmt: skip
    return torch.cat([part.flatten() for part in parts]).norm().item()


def test_clipping_is_by_the_norm_of_the_weights_that_exist(trained):
    model, weights = trained
    norm = norm_of_existing(model, weights)
    before = {name: param.grad.clone() for name, param in model.named_parameters()}
    weights.clip_gradients(model.parameters(), norm / 2)
    assert norm_of_existing(model, weights) == pytest.approx(norm / 2, rel=1e-4)
    for name, param in model.named_parameters():  # dense: RigL grows by those at masked places
        assert torch.allclose(param.grad, before[name] / 2, rtol=1e-4)


def test_large_gradients_of_weights_that_do_not_exist_clip_nothing(trained):
    model, weights = trained
    for name, mask in weights.masks.items():
        weights.params[name].grad[~mask] = float("inf")
    before = {name: param.grad.clone() for name, param in model.named_parameters()}
    weights.clip_gradients(model.parameters(), 2 * norm_of_existing(model, weights))
    for name, param in model.named_parameters():
        assert torch.equal(param.grad, before[name])

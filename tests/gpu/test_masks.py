"""Masks on a GPU: those of the CPU, exact, and equal on all ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gapbench.engine.sparsifier import Sparsifier
from gapbench.methods.method import methods
from gapbench.sparsity.masks import counts, top_mask, zeros_of
from gapbench.training.loop import train
from tests.children import on_two_ranks
from tests.small import STEPS, optimizer_of, small_model
from tests.trainings import Noise, Quiet, training_of


@pytest.mark.parametrize("method", list(methods))
def test_every_method_ends_with_its_exact_zeros(method, gpu):
    training = training_of(method, gpu)
    train(training, Quiet())
    sparsifier = training.sparsifier
    sparsifier.verify()
    for name, mask in sparsifier.masks.items():
        weight = sparsifier.weights.params[name]
        assert mask.device == weight.device == gpu
        assert torch.count_nonzero(weight[~mask]) == 0
    if sparsifier.plan.budget == "layers":
        for name, mask in sparsifier.masks.items():
            share = 0.0 if name in sparsifier.plan.dense_at_end else 0.8
            assert int((~mask).sum()) == zeros_of(mask.numel(), 1 - share), name
    assert sum(sparsifier.weights.active().values()) == sum(
        layer.numel - int((~sparsifier.masks[layer.name]).sum())
        if layer.name in sparsifier.masks
        else layer.numel
        for layer in sparsifier.layers
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 7, 1000, 100_001])
def test_masks_are_those_of_the_cpu(dtype, size, gpu):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(size, generator=generator).to(dtype)
    scores[torch.rand(size, generator=generator) < 0.3] = 0  # ties
    scores[torch.rand(size, generator=generator) < 0.01] = float("nan")
    scores[torch.rand(size, generator=generator) < 0.01] = -float("inf")
    for keep in {0, 1, size // 3, size - 1, size}:
        assert torch.equal(top_mask(scores, keep), top_mask(scores.to(gpu), keep).cpu())
    assert counts({"a": scores.to(gpu) > 0}) == counts({"a": scores > 0})


def _steps_of_a_rank(rank):
    """Train a few steps on this rank's own data; every rank uses the first GPU."""
    gpu = torch.device("cuda", 0)
    model = small_model().to(gpu)
    optimizer = optimizer_of(model, "sgd")
    options = {"sparsity": 0.8, "epochs": 4, "steps_per_epoch": STEPS, "every": 2}
    sparsifier = Sparsifier(model, optimizer, "rigl", **options)
    replica = nn.parallel.DistributedDataParallel(model)
    for step in range(3 * STEPS):
        generator = torch.Generator().manual_seed(1000 * rank + step)
        images = torch.randn(8, 1, 6, 6, generator=generator).to(gpu)
        labels = torch.randint(5, (8,), generator=generator).to(gpu)
        nn.functional.cross_entropy(replica(images), labels).backward()
        sparsifier.step()
        optimizer.zero_grad(set_to_none=True)
    updates = sum(change.event == "update" for change in sparsifier.changes())
    masks = {f"mask {name}": mask.cpu() for name, mask in sparsifier.masks.items()}
    weights = {name: param.detach().cpu() for name, param in model.named_parameters()}
    return {**masks, **weights, "updates": torch.tensor(updates)}


def test_ranks_that_share_a_gpu_have_equal_masks_and_weights(gpu, tmp_path):
    torch.zeros((), device=gpu)  # CUDA has begun here, so that ranks are spawned
    first, second = on_two_ranks(_steps_of_a_rank, tmp_path)
    assert first["updates"] > 2
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_trial_of_noise_is_repeated_bit_for_bit(gpu):
    states = []
    for _ in range(2):
        training = training_of("set", gpu, Noise(steps=8), bf16=True)
        train(training, Quiet(), until=12)
        states.append(training.model.state_dict())
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name

"""Data parallelism: gradients are averaged before magnitudes are taken, and masks agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gapbench.engine.replicas import check_equal
from gapbench.engine.sparsifier import Sparsifier
from gapbench.sparsity.patterns.unstructured import Unstructured
from gapbench.training.distributed import Ranks
from tests.children import on_two_ranks

drop_grow = Unstructured().drop_grow


def _one_rigl_update(rank):
    torch.manual_seed(0)
    model = nn.Linear(12, 10, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"sparsity": 0.7, "epochs": 4, "steps_per_epoch": 5, "every": 1, "alpha": 0.9}
    sparsifier = Sparsifier(model, optimizer, "rigl", **options)
    replica = nn.parallel.DistributedDataParallel(model)
    for step in range(2):
        before, mask = model.weight.detach().clone(), sparsifier.masks["weight"].clone()
        torch.manual_seed(10 * step + rank)
        inputs, targets = torch.randn(6, 12), torch.randn(6, 10)
        (own,) = torch.autograd.grad(nn.functional.mse_loss(model(inputs), targets), model.weight)
        nn.functional.mse_loss(replica(inputs), targets).backward()
        sparsifier.step()
        optimizer.zero_grad(set_to_none=True)
    return {"own": own, "before": before, "mask": mask, "after": sparsifier.masks["weight"]}


def test_rigl_grows_by_the_magnitude_of_the_average_gradient(tmp_path):
    first, second = on_two_ranks(_one_rigl_update, tmp_path)
    assert torch.equal(first["after"], second["after"])
    count = int(
        0.45 * (1 + torch.cos(torch.tensor(torch.pi / 15)).item()) * int(first["mask"].sum())
    )
    average = (first["own"] + second["own"]) / 2
    expected = drop_grow(first["before"].abs(), first["mask"], average.abs(), count)
    assert torch.equal(first["after"], expected)
    wrong = (first["own"].abs() + second["own"].abs()) / 2
    assert not torch.equal(expected, drop_grow(first["before"].abs(), first["mask"], wrong, count))


def test_ranks_are_spawned_where_this_process_uses_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    first, second = on_two_ranks(_mean_of_ranks, tmp_path)
    assert first["mean"] == second["mean"]


def _masks_that_differ(rank):
    mask = torch.zeros(8, dtype=torch.bool)
    check_equal({"layer": mask})
    mask[rank] = True
    with pytest.raises(RuntimeError, match="rank 1 does not agree with rank 0"):
        check_equal({"layer": mask})
    return {}


def test_a_rank_whose_masks_differ_is_named(tmp_path):
    on_two_ranks(_masks_that_differ, tmp_path)


def _mean_of_ranks(rank):
    own = torch.tensor([float(rank)])
    return {"mean": Ranks.current().mean(own), "own": own}


def test_the_mean_over_ranks_leaves_each_ranks_own_value_alone(tmp_path):
    first, second = on_two_ranks(_mean_of_ranks, tmp_path)
    assert first["mean"] == second["mean"] == 0.5
    assert (first["own"], second["own"]) == (0.0, 1.0)


def _alone(rank):
    group = torch.distributed.new_group([0])  # every rank takes part in making it
    if rank:
        return {}
    model = nn.Linear(12, 10, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"sparsity": 0.7, "epochs": 4, "steps_per_epoch": 5, "every": 2}
    sparsifier = Sparsifier(model, optimizer, "set", process_group=group, **options)
    for _ in range(20):
        model(torch.randn(6, 12)).sum().backward()
        sparsifier.step()
    sparsifier.verify()
    return {"done": torch.tensor(sparsifier.steps)}


def test_a_sparsifier_on_one_rank_waits_for_nobody_with_a_group_of_its_own(tmp_path):
    first, second = on_two_ranks(_alone, tmp_path)
    assert int(first["done"]) == 20 and not second

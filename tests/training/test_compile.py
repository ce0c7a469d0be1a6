"""Training through torch's compiler."""

from __future__ import annotations

from functools import partial

import torch

from gapbench.tasks.imagenet import ImageNet
from gapbench.training import setup
from gapbench.training.loop import train_step
from tests.runs import entry

CPU = torch.device("cpu")


def trained(compiled):
    trial = entry(only="rigl").trial
    task = trial.make_task()
    task.compile = compiled
    task.load(CPU)
    training = setup.build(task, trial.settings(), CPU)
    batches = task.batches(0, batch_size=trial.recipe.batch_size)
    for _ in range(trial.options["every"] + 1):
        train_step(training, next(batches))
    assert "update" in [change.event for change in training.sparsifier.changes()]
    return training


def test_compiled_training_changes_masks_and_weights_alike(monkeypatch):
    """With the compiler's back end that generates no code, even the bits are the same."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = trained(False), trained(True)
    assert isinstance(compiled.replica, torch._dynamo.OptimizedModule)
    assert plain.replica is plain.model
    one, other = plain.model.state_dict(), compiled.model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_imagenet_compiles_where_asked():
    assert ImageNet(compile=True).compile
    assert not ImageNet().compile

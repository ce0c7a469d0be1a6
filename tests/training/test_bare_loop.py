"""Training against a bare loop of plain torch, bit for bit, for every option of a recipe.

The bare loop shares no line with the engine, the schedules or the training loop. Dense training
has nothing else to do; a static mask must then change nothing but the masked weights.
"""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import nn

from gapbench.methods.method import plan
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.digits import Digits
from gapbench.training.loop import train_step
from gapbench.training.setup import Settings, build

STEPS = 6
SEED = 11
PLAIN = {
    "nesterov": False,
    "weight_decay": 0.0,
    "warmup_epochs": 0.0,
    "lr": 0.05,
    "batch_size": 64,
    "schedule": "constant",
}
OPTIONS = {
    "sgd": {"momentum": 0.0},
    "momentum": {"momentum": 0.8},
    "nesterov": {"nesterov": True},
    "decay": {"weight_decay": 0.05},
    "decay of norms": {"weight_decay": 0.05, "decay_norms": True},
    "adam": {"optimizer": "adam", "lr": 0.003, "betas": (0.8, 0.95), "weight_decay": 0.05},
    "adamw": {"optimizer": "adamw", "lr": 0.003, "betas": (0.7, 0.99), "weight_decay": 0.05},
    "smoothing": {"label_smoothing": 0.1},
    "clipping": {"clip_norm": 0.5},
    "bf16": {"bf16": True},
    "channels last": {"channels_last": True},
    "cosine": {"schedule": "cosine"},
    "milestones": {"schedule": "step", "milestones": (0.02, 0.03), "decay_factor": 0.2},
    "inverse root": {"schedule": "inverse_sqrt", "warmup_steps": 3},
    "warm-up steps": {"warmup_steps": 4},
    "warm-up epochs": {"warmup_epochs": 0.2},
}


def seed_of(*path) -> int:
    text = "/".join(map(str, (SEED, *path)))
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2


def trained(method: str, **options):
    """Return a training after a few steps of gapbench's own loop."""
    task = Digits()
    task.load(torch.device("cpu"))
    recipe = Digits.recipe.model_copy(update={**PLAIN, **options})
    model = task.build_model()
    settings = Settings(
        recipe=recipe,
        plan=plan(method, layers_of(model, task.prunable(model)), recipe.epochs, seed=SEED),
        distribution="dense" if method == "dense" else "uniform",
        first_layer="sparse",
        sparsity=0.0 if method == "dense" else 0.8,
        seed=SEED,
    )
    training = build(task, settings, torch.device("cpu"))
    masks = {name: mask.clone() for name, mask in training.sparsifier.masks.items()}
    training.replica.train()
    for _, batch in zip(range(STEPS), batches(task, recipe), strict=False):
        train_step(training, batch)
    return task, recipe, masks, training


def batches(task, recipe):
    return task.batches(seed_of("data", 0), batch_size=recipe.batch_size)


def bare(task, recipe, masks):
    """Return a model trained as the recipe says, in plain torch."""
    torch.manual_seed(seed_of("init"))
    model = task.build_model()
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    decay = recipe.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0},
    ]
    if recipe.decay_norms:
        groups = [{"params": list(model.parameters()), "weight_decay": decay}]
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=1.0, momentum=recipe.momentum, nesterov=recipe.nesterov
        )
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        optimizer = kind(groups, lr=1.0, betas=recipe.betas)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name][~mask] = 0
    model.train()
    for step, (images, labels) in zip(range(STEPS), batches(task, recipe), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = nn.functional.cross_entropy(
                model(images), labels, label_smoothing=recipe.label_smoothing
            )
        loss.backward()
        if recipe.clip_norm:
            assert not masks, "clipping looks at weights inside the masks only"
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name][~mask] = 0
    return model


def rate(recipe, step: int) -> float:
    per_epoch = 1152 // recipe.batch_size
    steps = recipe.epochs * per_epoch
    warmup = max(recipe.warmup_steps, round(recipe.warmup_epochs * per_epoch))
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.schedule == "cosine":
        return recipe.lr / 2 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    if recipe.schedule == "step":
        return recipe.lr * recipe.decay_factor ** sum(step >= m * steps for m in recipe.milestones)
    if recipe.schedule == "inverse_sqrt":
        return recipe.lr * math.sqrt(warmup / (step + 1))
    return recipe.lr


@pytest.mark.parametrize("name", OPTIONS)
def test_dense_training_is_a_bare_loop_of_plain_torch(name):
    task, recipe, masks, training = trained("dense", **OPTIONS[name])
    assert not masks
    assert_equal(bare(task, recipe, masks), training.model)


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"clipping"}))
def test_static_training_is_a_bare_loop_that_masks_after_each_step(name):
    task, recipe, masks, training = trained("static", **OPTIONS[name])
    assert len(masks) == 10
    for name, mask in masks.items():
        assert int((~mask).sum()) == math.floor(0.8 * mask.numel() + 1e-9), name
    assert_equal(bare(task, recipe, masks), training.model)


def test_each_option_changes_what_is_trained():
    """Otherwise the comparisons above would say nothing about it."""
    plain = trained("dense")[3].model.state_dict()
    for name, options in OPTIONS.items():
        changed = trained("dense", **options)[3].model.state_dict()
        # another layout of memory is another order of sums, which few steps need not show
        assert name == "channels last" or any(
            not torch.equal(plain[key], changed[key]) for key in plain
        ), name


def test_clipping_takes_the_norm_inside_the_masks():
    _, recipe, masks, training = trained("static", clip_norm=1e-3, momentum=0.0)
    parameters = dict(training.model.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    train_step(training, next(batches(training.task, recipe)))
    moved = [parameters[name].detach() - before[name] for name in parameters]
    norm = torch.stack([change.norm() for change in moved]).norm().item()
    assert norm == pytest.approx(recipe.lr * 1e-3, rel=1e-3)
    assert masks


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    expected, found = one.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name

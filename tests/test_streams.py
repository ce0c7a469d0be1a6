"""Every named random stream: another seed changes it, the same seed repeats it, none is shared."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch

from gapbench.base.streams import stream, stream_seed
from gapbench.methods.method import plan
from gapbench.plan.phases import Layer
from gapbench.sparsity.layers import layers_of
from gapbench.tasks.digits import Digits
from gapbench.tasks.images.batching import epoch_order
from gapbench.tasks.images.memory import _moves
from gapbench.training.loop import train_epoch
from gapbench.training.setup import Settings, build
from tests.trainings import Quiet

LAYERS = tuple(Layer(f"l{i}", (8, 4)) for i in range(12))


def settings(seed, layers, method="set", **options):
    return Settings(
        recipe=Digits.recipe,
        plan=plan(method, layers, 8, seed=seed, **options),
        distribution="uniform",
        first_layer="sparse",
        sparsity=0.8,
        seed=seed,
    )


def training_of(seed, method="set", **options):
    task = Digits()
    task.load(torch.device("cpu"))
    model = task.build_model()
    layers = layers_of(model, task.prunable(model))
    return build(task, settings(seed, layers, method, **options), torch.device("cpu"))


def initial_weights(seed):
    # dense training: no mask hides a weight
    training = training_of(seed, "gradual")
    return torch.cat([p.detach().flatten() for p in training.model.parameters() if p.dim() > 1])


def initial_masks(seed):
    return torch.cat([m.flatten() for m in training_of(seed).sparsifier.masks.values()])


def random_growth(seed):
    """Scores of SET's growth at a step, whatever the masks and weights are."""
    sparsifier = training_of(seed).sparsifier
    sparsifier.steps = 20
    name, param = next(iter(sparsifier.weights.params.items()))
    generator = sparsifier.random("growth", sparsifier.steps, name)
    return torch.rand(param.shape, generator=generator)


def random_steps(seed):
    grown = plan("c_gap", LAYERS, 40, seed=seed, strategy="random").segments
    return torch.tensor([[layer.name in s.phase.grow for layer in LAYERS] for s in grown])


def random_partition(seed):
    grown = plan("c_gap", LAYERS, 40, seed=seed, partition_rule="random").segments
    return torch.tensor([[layer.name in s.phase.grow for layer in LAYERS] for s in grown])


DRAWS = {
    "initial weights": initial_weights,
    "initial masks": initial_masks,
    "random growth": random_growth,
    "random steps": random_steps,
    "random partition": random_partition,
    "order": lambda seed: epoch_order(seed, 200),
    "augmentation": lambda seed: _moves(3, True, 200, seed),
}


@pytest.mark.parametrize("name", DRAWS)
def test_another_seed_draws_otherwise_and_the_same_seed_the_same(name):
    draw = DRAWS[name]
    first, again, other = draw(3), draw(3), draw(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scores_of_growth_differ_by_step_and_by_layer():
    sparsifier = training_of(3).sparsifier
    names = list(sparsifier.weights.params)
    drawn = []
    for steps, name in itertools.product((100, 200), names[:2]):
        sparsifier.steps = steps
        drawn.append(torch.rand(64, generator=sparsifier.random("growth", steps, name)))
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.equal(one, other)


@pytest.fixture
def asked(monkeypatch):
    """Record which streams a training asks for."""
    found: list[tuple[int, ...]] = []

    def recorded(seed, *path):
        found.append((seed, *path))
        return stream_seed(seed, *path)

    for module in ("engine.executor", "training.loop", "training.setup"):
        monkeypatch.setattr(f"gapbench.{module}.stream_seed", recorded)
    monkeypatch.setattr(
        "gapbench.methods.method.stream",
        lambda seed, *path: (found.append((seed, *path)), stream(seed, *path))[1],
    )
    return found


def test_a_trial_takes_all_it_draws_from_its_own_seed_and_no_stream_twice(asked):
    training = training_of(7, "set", every=5)
    for _ in range(2):
        train_epoch(training, Quiet())
    steps = 2 * training.per_epoch
    updates = range(5, steps, 5)
    expected = [
        (7, "init"),
        (7, "partition"),
        *((7, "mask", name) for name in training.sparsifier.weights.params),
        *((7, "data", epoch) for epoch in range(2)),
        *((7, "noise", step, 0) for step in range(steps)),
        *(
            (7, "growth", step, name)
            for step in updates
            for name in training.sparsifier.weights.params
        ),
    ]
    assert sorted(map(str, asked)) == sorted(map(str, expected))
    seeds = [stream_seed(*path) for path in asked]
    assert len(set(seeds)) == len(seeds)


def test_each_epoch_has_an_order_and_shifts_of_its_own():
    a, b = (stream_seed(0, "data", epoch) for epoch in (0, 1))
    assert not torch.equal(epoch_order(a, 100), epoch_order(b, 100))
    assert not torch.equal(_moves(2, True, 100, a), _moves(2, True, 100, b))


def test_order_and_augmentation_of_one_seed_share_no_stream():
    assert stream_seed(5, "order") != stream_seed(5, "augment")


def test_a_stream_is_the_sha256_of_its_address():
    expected = int(hashlib.sha256(b"12/mask/conv1.weight").hexdigest()[:16], 16) // 2
    assert stream_seed(12, "mask", "conv1.weight") == expected
    with pytest.raises(ValueError, match="needs a name"):
        stream_seed(0)

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapbench.errors import UserError
from gapbench.sparsity.counts import zeros_of
from gapbench.sparsity.distributions import (
    densities,
    distributions,
    erk,
    global_magnitude,
    uniform,
)
from gapbench.sparsity.masks import top_mask

shape = st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple)
shapes_of_a_model = st.lists(shape, min_size=1, max_size=6).map(
    lambda shapes: {f"l{index}": shape for index, shape in enumerate(shapes)}
)


def nonzeros(shapes, density):
    return {
        name: math.prod(shape) - zeros_of(math.prod(shape), density[name])
        for name, shape in shapes.items()
    }


DENSE_AT_80 = {
    "layer1.0.conv1",
    "layer1.0.conv3",
    "layer1.0.downsample.0",
    "layer1.1.conv1",
    "layer1.1.conv3",
    "layer1.2.conv1",
    "layer1.2.conv3",
    "layer2.0.conv1",
}


@pytest.mark.parametrize(
    ("sparsity", "epsilon", "dense", "total"),
    [(0.8, 99.561667, DENSE_AT_80, 5_100_630), (0.9, 48.786611, {"layer1.0.conv1"}, 2_550_353)],
)
def test_reference_erk_of_resnet50(resnet50, sparsity, epsilon, dense, total):
    density = erk(resnet50.shapes, sparsity)
    assert {name for name in density if density[name] == 1} == {f"{n}.weight" for n in dense}
    shape = resnet50.shapes["fc.weight"]
    found = density["fc.weight"] * math.prod(shape) / sum(shape)
    assert found == pytest.approx(epsilon, abs=5e-7)
    assert sum(nonzeros(resnet50.shapes, density).values()) == total


@pytest.mark.parametrize(
    ("layer", "numel", "at_80", "nonzeros_80", "at_90", "nonzeros_90"),
    [
        ("conv1", 9_408, 0.857195, 8_065, 0.420038, 3_952),
        ("layer1.0.conv2", 36_864, 0.361905, 13_342, 0.177338, 6_538),
        ("layer2.0.downsample.0", 131_072, 0.584888, 76_663, 0.286603, 37_566),
        ("layer3.0.conv2", 589_824, 0.087438, 51_573, 0.042846, 25_272),
        ("layer4.0.conv2", 2_359_296, 0.043466, 102_549, 0.021299, 50_251),
        ("layer4.0.conv3", 1_048_576, 0.243260, 255_077, 0.119201, 124_992),
        ("fc", 2_048_000, 0.148176, 303_464, 0.072608, 148_702),
    ],
)
def test_reference_erk_density_of_a_resnet50_layer(
    resnet50, layer, numel, at_80, nonzeros_80, at_90, nonzeros_90
):
    shapes, name = resnet50.shapes, f"{layer}.weight"
    assert math.prod(shapes[name]) == numel
    for sparsity, density, count in ((0.8, at_80, nonzeros_80), (0.9, at_90, nonzeros_90)):
        found = erk(shapes, sparsity)
        assert found[name] == pytest.approx(density, abs=5e-7)
        assert nonzeros(shapes, found)[name] == count


def test_reference_small_erk_cases():
    density = erk({"a": (2, 4), "b": (3, 6), "c": (2, 4, 6)}, 0.5)
    sparsity = {name: round(1 - value, 4) for name, value in density.items()}
    assert sparsity == {"a": 0, "b": 0.3095, "c": 0.6548}


@given(shapes=shapes_of_a_model, sparsity=st.floats(0, 0.999))
def test_erk_meets_the_budget_with_densities_in_proportion_or_dense(shapes, sparsity):
    density = erk(shapes, sparsity)
    numel = {name: math.prod(shape) for name, shape in shapes.items()}
    kept = sum(density[name] * numel[name] for name in shapes)
    assert kept == pytest.approx(sum(nonzeros(shapes, uniform(shapes, sparsity)).values()))
    ratios = {name: sum(shape) / numel[name] for name, shape in shapes.items()}
    sparse = [name for name in shapes if density[name] < 1]
    epsilons = [density[name] / ratios[name] for name in sparse]
    assert epsilons == pytest.approx([epsilons[0]] * len(epsilons) if epsilons else [])
    assert all(
        ratios[a] >= ratios[b] for a in shapes if a not in sparse for b in sparse
    )  # the dense ones are those of the largest ratio


@given(shapes=shapes_of_a_model)
def test_no_sparsity_is_dense_under_every_distribution(shapes):
    for name in ("uniform", "erk"):
        assert nonzeros(shapes, densities(name, shapes, 0.0)) == {
            layer: math.prod(shape) for layer, shape in shapes.items()
        }


def test_layers_that_tie_for_the_largest_ratio_become_dense_together():
    density = erk({"a": (2, 4), "b": (4, 2), "c": (40, 40)}, 0.9)
    assert density["a"] == density["b"] == 1


def test_uniform_gives_every_layer_the_same_density():
    assert uniform({"a": (2, 3), "b": (9, 9)}, 0.75) == {"a": 0.25, "b": 0.25}


def tensors_of(draw_seed, shapes):
    generator = torch.Generator().manual_seed(draw_seed)
    return {
        name: torch.randint(-4, 5, shape, generator=generator).float() * (index + 1)
        for index, (name, shape) in enumerate(shapes.items())
    }


@given(shapes=shapes_of_a_model, seed=st.integers(0, 10**6), thousandths=st.integers(0, 999))
@settings(deadline=None)
def test_global_magnitude_without_floors_is_one_threshold_over_all_layers(
    shapes, seed, thousandths
):
    weights = tensors_of(seed, shapes)
    flat = torch.cat([weight.abs().flatten() for weight in weights.values()])
    kept = global_magnitude(weights, thousandths / 1000, floor=0.0)
    least = {name: shape[0] for name, shape in shapes.items()}
    budget = flat.numel() - thousandths * flat.numel() // 1000
    if sum(least.values()) <= budget:
        assert sum(kept.values()) == budget
    joint = top_mask(flat, budget)
    free = dict(zip(shapes, joint.split([w.numel() for w in weights.values()]), strict=True))
    if all(free[name].sum() >= least[name] for name in shapes):
        assert kept == {name: int(mask.sum()) for name, mask in free.items()}
        for name, weight in weights.items():  # each layer alone then takes the joint mask's part
            assert torch.equal(top_mask(weight.abs().flatten(), kept[name]), free[name])


@given(shapes=shapes_of_a_model, seed=st.integers(0, 10**6), sparsity=st.floats(0, 0.999))
@settings(deadline=None)
def test_global_magnitude_meets_the_budget_unless_the_floors_alone_exceed_it(
    shapes, seed, sparsity
):
    kept = global_magnitude(tensors_of(seed, shapes), sparsity, floor=0.1)
    numel = {name: math.prod(shape) for name, shape in shapes.items()}
    floors = {name: max(math.ceil(numel[name] / 10), shapes[name][0]) for name in shapes}
    assert list(kept) == list(shapes)
    assert all(floors[name] <= kept[name] <= numel[name] for name in shapes)
    total = sum(numel.values())
    budget = total - zeros_of(total, 1 - sparsity)
    assert sum(kept.values()) == max(budget, sum(floors.values()))


def test_the_floor_is_half_a_percent_or_one_weight_an_output_unit():
    weights = {
        "wide": torch.full((10, 1000), 1e-6),
        "tall": torch.full((100, 20), 1e-6),
        "large": torch.ones(200, 100),
    }
    kept = global_magnitude(weights, 0.9)
    assert kept == {"wide": 50, "tall": 100, "large": 3200 - 150}


def test_a_layer_given_a_floor_takes_the_budget_from_the_others_not_from_the_whole():
    weights = {"a": torch.tensor([[9.0, 8.0], [7.0, 6.0]]), "b": torch.tensor([[1.0], [2.0]])}
    assert global_magnitude(weights, 0.5) == {"a": 2, "b": 2}  # keeps 3, were it not for floors


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.2, float("nan")])
@pytest.mark.parametrize("name", list(distributions))
def test_a_sparsity_outside_of_its_range_is_refused_in_one_line(name, sparsity):
    layer = torch.ones(2, 2) if distributions[name].by_magnitude else (2, 2)
    with pytest.raises(UserError, match=r"sparsity: .* give a number in \[0, 1\)"):
        distributions[name].spread({"a": layer}, sparsity)


def test_densities_by_magnitude_cannot_be_had_from_shapes():
    with pytest.raises(UserError, match="global_magnitude: its densities follow from weights"):
        densities("global_magnitude", {"a": (2, 2)}, 0.5)
    with pytest.raises(UserError, match="did you mean 'uniform'"):
        densities("unifrom", {"a": (2, 2)}, 0.5)

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapbench.errors import UserError
from gapbench.plan.partitions import partition
from gapbench.plan.phases import Layer

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def layers_of(sizes):
    return tuple(Layer(f"l{index}", (size,)) for index, size in enumerate(sizes))


def split(layers, kappa, rule="contiguous", seed=0, patterns=()):
    return partition(layers, kappa, rule, random.Random(seed), patterns)


@given(sizes=sizes, rule=st.sampled_from(["contiguous", "interleaved", "random"]), data=st.data())
def test_groups_cover_all_layers_do_not_overlap_and_are_never_empty(sizes, rule, data):
    layers = layers_of(sizes)
    kappa = data.draw(st.integers(1, len(layers)))
    groups = split(layers, kappa, rule)
    assert len(groups) == kappa
    assert all(groups)
    assert sorted(name for group in groups for name in group) == sorted(x.name for x in layers)


@given(sizes=sizes, data=st.data())
def test_contiguous_groups_are_consecutive_and_as_even_as_any_cut_can_be(sizes, data):
    layers = layers_of(sizes)
    kappa = data.draw(st.integers(1, len(layers)))
    groups = split(layers, kappa)
    order = [layer.name for layer in layers]
    assert [name for group in groups for name in sorted(group, key=order.index)] == order

    def falling(cuts):
        bounds = itertools.pairwise((0, *cuts, len(sizes)))
        return sorted((sum(sizes[a:b]) for a, b in bounds), reverse=True)

    best = min(falling(cuts) for cuts in itertools.combinations(range(1, len(sizes)), kappa - 1))
    numel = {layer.name: layer.numel for layer in layers}
    assert sorted((sum(map(numel.get, group)) for group in groups), reverse=True) == best


def test_interleaved_deals_layers_out_in_turn():
    groups = split(layers_of([1] * 7), 3, "interleaved")
    assert groups == (
        frozenset({"l0", "l3", "l6"}),
        frozenset({"l1", "l4"}),
        frozenset({"l2", "l5"}),
    )


def test_random_groups_follow_from_the_generator_alone():
    layers = layers_of([1] * 12)
    assert split(layers, 4, "random", seed=1) == split(layers, 4, "random", seed=1)
    assert split(layers, 4, "random", seed=1) != split(layers, 4, "random", seed=2)
    assert {len(group) for group in split(layers, 4, "random")} == {3}


def test_resnet50_by_stage_and_contiguous(resnet50):
    stages = (("conv1.weight", "layer1.*"), ("layer2.*",), ("layer3.*",), ("layer4.*", "fc.*"))
    groups = split(resnet50.layers, 4, "patterns", patterns=stages)
    assert [len(group) for group in groups] == [11, 13, 19, 11]
    numel = {layer.name: layer.numel for layer in resnet50.layers}
    even = [sum(numel[name] for name in group) for group in split(resnet50.layers, 4)]
    assert max(even) < 0.31 * sum(numel.values())


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([["l0"], ["l1"]], "layer l2 is in no group"),
        ([["l*"], ["l1"]], "layer l1 is in groups 0, 1"),
        ([["l?"], ["head.*"]], r"group 1 \(head.\*\) has no layer"),
        ([["l*"]], "1 groups for 2 partitions"),
    ],
)
def test_patterns_must_put_every_layer_into_exactly_one_group(patterns, message):
    with pytest.raises(UserError, match=message) as caught:
        split(layers_of([1, 2, 3]), 2, "patterns", patterns=patterns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kappa", [0, -1, 4])
def test_a_number_of_groups_that_the_layers_cannot_fill_is_refused(kappa):
    with pytest.raises(UserError, match=f"{kappa} is not possible with 3 prunable layers"):
        split(layers_of([1, 2, 3]), kappa)

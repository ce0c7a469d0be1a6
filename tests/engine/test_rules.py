"""Each rule of the methods as a small vector with the answer written down by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gapbench.engine.sparsifier import Sparsifier
from gapbench.engine.targets import Targets
from gapbench.plan.phases import Layer, Parallel, Phase, Plan
from gapbench.plan.updates.drop_grow import DropGrow
from gapbench.plan.updates.gradual import Gradual
from gapbench.sparsity.patterns.unstructured import Unstructured

EVERY = frozenset({"weight"})


def vector_sparsifier(plan, values, sparsity=0.5, lr=0.0, momentum=0.9, per_epoch=4):
    """A linear layer of one row, whose gradients are set by hand."""
    model = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([values]))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    sparsifier = Sparsifier(model, optimizer, plan, sparsity=sparsity, steps_per_epoch=per_epoch)
    return model.weight, sparsifier


def step(weight, sparsifier, gradient):
    weight.grad = torch.tensor([gradient], dtype=torch.float32)
    sparsifier.step()


def place(weight, sparsifier, values, mask):
    """Put weights and mask in place as though training had made them."""
    sparsifier.weights.set_masks({"weight": torch.tensor([mask], dtype=torch.bool)})
    with torch.no_grad():
        weight.copy_(torch.tensor([values]))


def moving(score, **options):
    update = DropGrow(score, **{"every": 2, "until": 1.0, "alpha": 0.6, **options})
    return Plan((Phase(1, update=update),), "random")


def test_growth_drops_least_magnitude_and_grows_the_largest_gradient_among_all_not_kept():
    # step 2 of 4: f = 0.6 / 2 (1 + cos(pi / 2)) = 0.3; 0.3 x 4 active = 1.2, so one moves
    weight, sparsifier = vector_sparsifier(moving("gradient"), [1.0] * 8)
    values, mask = [4.0, -0.5, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1, 0, 0, 0, 0]
    for _ in range(2):
        step(weight, sparsifier, [0.0] * 8)
    place(weight, sparsifier, values, mask)
    step(weight, sparsifier, [9.0, 0.0, 0.0, 0.0, 0.1, -7.0, 6.0, 0.0])
    assert sparsifier.masks["weight"].tolist() == [
        [True, False, True, True, False, True, False, False]
    ]
    assert weight.tolist() == [[4.0, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]]


def test_a_weight_dropped_now_may_come_back_with_value_and_momentum():
    weight, sparsifier = vector_sparsifier(moving("gradient"), [1.0] * 8)
    for _ in range(2):
        step(weight, sparsifier, [0.0] * 8)
    place(weight, sparsifier, [4.0, -0.5, 3.0, 2.0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
    momentum = sparsifier.optimizer.state[weight]["momentum_buffer"]
    momentum.fill_(5.0)
    step(weight, sparsifier, [0.0, 8.0, 0.0, 0.0, 0.1, -7.0, 6.0, 0.0])
    assert sparsifier.masks["weight"].tolist() == [[True] * 4 + [False] * 4]
    assert weight.tolist() == [[4.0, -0.5, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]]
    # momentum of what was active stays, of what was masked it is zero
    assert momentum.tolist() == [[5.0] * 4 + [0.0] * 4]


def test_what_is_grown_starts_at_zero_without_momentum():
    weight, sparsifier = vector_sparsifier(moving("gradient"), [1.0] * 8)
    for _ in range(2):
        step(weight, sparsifier, [0.0] * 8)
    place(weight, sparsifier, [4.0, -0.5, 3.0, 2.0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
    momentum = sparsifier.optimizer.state[weight]["momentum_buffer"]
    momentum.fill_(5.0)
    step(weight, sparsifier, [0.0, 0.0, 0.0, 0.0, 0.1, -7.0, 6.0, 0.0])
    assert momentum.tolist() == [[5.0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("alpha", "moved"), [(0.49, 0), (0.5, 1), (0.99, 1), (1.0, 2)])
def test_the_drop_count_is_floored(alpha, moved):
    # f(T_end / 2) = alpha / 2, of 4 active weights: alpha x 2, floored
    weight, sparsifier = vector_sparsifier(moving("gradient", alpha=alpha), [1.0] * 8)
    for _ in range(2):
        step(weight, sparsifier, [0.0] * 8)
    place(weight, sparsifier, [4.0, 1.0, 3.0, 2.0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
    step(weight, sparsifier, [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    now = sparsifier.masks["weight"][0].tolist()
    assert now[4:].count(True) == moved
    assert now[7] is (moved > 0)


def test_rigls_update_takes_no_optimiser_step_and_sets_does():
    for score, replaces in (("gradient", True), ("random", False)):
        weight, sparsifier = vector_sparsifier(
            moving(score, alpha=0.01, replaces_step=replaces), [1.0] * 8, lr=0.5, momentum=0.0
        )
        for _ in range(2):
            step(weight, sparsifier, [0.0] * 8)
        place(weight, sparsifier, [4.0, 1.0, 3.0, 2.0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
        step(weight, sparsifier, [1.0] * 8)
        moved = 0.0 if replaces else 0.5
        expected = [4.0 - moved, 1.0 - moved, 3.0 - moved, 2.0 - moved, 0.0, 0.0, 0.0, 0.0]
        assert weight.tolist() == [expected]


def test_random_growth_differs_from_update_to_update_and_from_layer_to_layer():
    model = nn.Sequential(nn.Linear(64, 1, bias=False), nn.Linear(64, 1, bias=False))
    plan = Plan((Phase(1, update=DropGrow("random", 1, 1.0, 1.0, False)),), "random")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = Sparsifier(model, optimizer, plan, sparsity=0.75, steps_per_epoch=50)
    grown = []
    start = torch.arange(64).view(1, 64) < 16
    for _ in range(4):
        for param in model.parameters():
            param.grad = torch.zeros_like(param)
        sparsifier.weights.set_masks({"0.weight": start, "1.weight": start})
        sparsifier.step()
        grown += [tuple(mask[0].tolist()) for mask in sparsifier.masks.values()]
    changed = grown[2:]  # step 0 moves nothing
    assert len(set(changed)) == len(changed)


def test_pruning_zeroes_the_floor_of_smallest_magnitudes_ties_by_lower_index():
    plan = Plan((Phase(1, grow=EVERY), Phase(1)), "random")
    weight, sparsifier = vector_sparsifier(plan, [1.0] * 7, sparsity=0.5, per_epoch=1)
    place(weight, sparsifier, [0.0] * 7, [1] * 7)
    with torch.no_grad():
        weight.copy_(torch.tensor([[-1.0, 1.0, 0.5, -3.0, 1.0, 0.25, 2.0]]))
    step(weight, sparsifier, [0.0] * 7)
    # 3 of 7 zeros; of the three of magnitude 1 the one of the highest index goes
    assert weight.tolist() == [[-1.0, 1.0, 0.0, -3.0, 0.0, 0.0, 2.0]]


def test_growing_starts_masked_positions_at_zero_and_keeps_the_others():
    plan = Plan((Phase(1), Phase(1, grow=EVERY), Phase(1)), "random")
    weight, sparsifier = vector_sparsifier(plan, [1.0] * 4, per_epoch=1)
    place(weight, sparsifier, [3.0, 0.0, 2.0, 0.0], [1, 0, 1, 0])
    step(weight, sparsifier, [0.0] * 4)
    assert "weight" not in sparsifier.masks
    assert weight.tolist() == [[3.0, 0.0, 2.0, 0.0]]


def test_the_change_says_mask_error_and_overlap_by_their_formulas():
    plan = Plan((Phase(1), Phase(1, grow=EVERY), Phase(1)), "random")
    weight, sparsifier = vector_sparsifier(plan, [1.0] * 4, per_epoch=1)
    place(weight, sparsifier, [3.0, 0.0, 2.0, 0.0], [1, 0, 1, 0])
    step(weight, sparsifier, [0.0] * 4)
    with torch.no_grad():
        weight.copy_(torch.tensor([[3.0, 4.0, 1.0, 2.0]]))
    step(weight, sparsifier, [0.0] * 4)
    prune = next(c for c in reversed(sparsifier.changes()) if c.event == "prune")
    # kept 3 and 4 of 9 + 16 + 1 + 4; before it was {0, 2}, now {0, 1}
    assert prune.mask_error == pytest.approx(5 / 30)
    assert prune.iou == {"weight": pytest.approx(1 / 3)}


def test_gradual_pruning_follows_the_cubic_curve_step_by_step():
    plan = Plan((Phase(1, grow=EVERY, update=Gradual(2, 0.2, 0.8)),))
    weight, sparsifier = vector_sparsifier(
        plan, [float(i + 1) for i in range(64)], sparsity=0.75, per_epoch=10
    )
    zeros = []
    for _ in range(10):
        step(weight, sparsifier, [0.0] * 64)
        zeros.append(int((weight == 0).sum()))
    # t0 = 2, t1 = 8, prunes after steps 2, 4, 6 and 8 of 48 zeros in the end
    curve = {t: math.floor(48 * (1 - (1 - (t - 2) / 6) ** 3)) for t in (2, 4, 6, 8)}
    assert curve == {2: 0, 4: 33, 6: 46, 8: 48}
    assert zeros == [0, 0, 0, 0, 33, 33, 46, 46, 48, 48]


def test_a_round_takes_each_partition_from_its_own_worker_and_nothing_else():
    model = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 4))
    names = ("0.weight", "1.weight")
    plan = Plan(
        (Parallel(tuple(Phase(1, grow=frozenset({name})) for name in names)), Phase(1)),
        "random",
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = Sparsifier(model, optimizer, plan, sparsity=0.5, steps_per_epoch=1)
    parameters = dict(model.named_parameters())
    for worker in (10.0, 20.0):
        with torch.no_grad():
            for number, parameter in enumerate(parameters.values()):
                parameter.copy_(
                    torch.arange(parameter.numel()).view_as(parameter) + worker + number
                )
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        sparsifier.step()
    # a bias belongs to the layer that it follows; the larger half of each grown weight stays
    assert parameters["0.weight"].tolist() == [[0.0, 0.0, 12.0, 13.0]]
    assert parameters["0.bias"].tolist() == [11.0]
    assert parameters["1.weight"].tolist() == [[0.0], [0.0], [24.0], [25.0]]
    assert parameters["1.bias"].tolist() == [23.0, 24.0, 25.0, 26.0]


def test_the_first_mask_is_random_with_exact_counts_or_by_magnitude():
    _, sparsifier = vector_sparsifier(
        Plan((Phase(1),), "random"), [float(i) for i in range(1, 65)], sparsity=0.75
    )
    kept = sparsifier.masks["weight"]
    assert int(kept.sum()) == 16 and not kept[0, 48:].all()
    _, sparsifier = vector_sparsifier(
        Plan((Phase(1),), "dense"), [float(i) for i in range(1, 65)], sparsity=0.75
    )
    kept = sparsifier.masks["weight"]
    assert kept[0, 48:].all() and int(kept.sum()) == 16


@pytest.mark.parametrize("restart", [True, False])
def test_restarting_forgets_the_optimisers_state(restart):
    plan = Plan((Phase(1), Phase(1, restart=restart)), "random")
    weight, sparsifier = vector_sparsifier(plan, [1.0] * 4, per_epoch=1)
    step(weight, sparsifier, [1.0] * 4)
    state = sparsifier.optimizer.state.get(weight)
    assert (not state) is restart


@pytest.mark.parametrize(
    ("zeros_of_a", "zeros_of_b", "kept"),
    [(1000, 1000, 1000), (1000, 800, 1000), (1000, 799, 999), (400, 500, 100), (0, 0, 10)],
)
def test_a_prune_of_shared_layers_makes_the_zeros_that_the_others_lack(
    zeros_of_a, zeros_of_b, kept
):
    """1,800 of 3,000 weights are to be zero; a layer keeps at least 1 % of its weights."""
    grown = [frozenset(names) for names in ("ab", "bc", "c")]
    plan = Plan((*(Phase(1, group) for group in grown), Phase(1)), "random")
    layers = tuple(Layer(name, (10, 100)) for name in "abc")
    targets = Targets(layers, 0.6, "global_magnitude", plan, Unstructured())
    masks = {}
    for name, zeros in (("a", zeros_of_a), ("b", zeros_of_b)):
        masks[name] = torch.arange(1000).view(10, 100) >= zeros
    weights = {"c": torch.arange(1.0, 1001.0).view(10, 100)}
    assert targets.keep(weights, masks) == {"c": kept}

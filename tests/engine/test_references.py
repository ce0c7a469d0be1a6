"""GraNet, MEST, SRigL and STR against references written from the papers, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gapbench
from gapbench.base.streams import stream_seed

STEPS, EPOCHS, SPARSITY, RATE = 10, 12, 0.8, 0.05
TOTAL = STEPS * EPOCHS


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 3)).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(TOTAL):
        inputs = torch.randn(16, 12, generator=generator, dtype=torch.float64)
        yield inputs, (inputs[:, :3]).argmax(1)


def lowest(values, count):
    """Return the flat places of the `count` lowest values, of equal ones the later first."""
    order = sorted(range(len(values)), key=lambda place: (values[place], -place))
    return order[:count]


def sparse_run(method, **options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    sparsifier = gapbench.Sparsifier(
        model, optimizer, method, sparsity=SPARSITY, epochs=EPOCHS, steps_per_epoch=STEPS, **options
    )
    for inputs, labels in batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        sparsifier.step()
        yield model, sparsifier
    # a unit without an outgoing weight learns nothing: what grows into it stays 0
    assert sparsifier.verify() == 0 or "pattern" in options


def reference_step(model, masks, inputs, labels):
    for param in model.parameters():
        param.grad = None
    nn.functional.cross_entropy(model(inputs), labels).backward()
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.add_(param.grad, alpha=-RATE)  # as torch's SGD rounds
            if name in masks:
                param[~masks[name]] = 0


def assert_alike(model, other, masks, sparsifier):
    for (name, param), mine in zip(model.named_parameters(), other.parameters(), strict=True):
        if name in masks:
            assert torch.equal(masks[name], sparsifier.masks.get(name, masks[name])), name
        assert torch.equal(param, mine), name


def test_granet_is_its_papers_algorithm():
    every, start, stop, alpha = 7, 0.1, 0.7, 0.5
    t0, t1 = math.floor(start * TOTAL), math.floor(stop * TOTAL)
    model, masks = net(), {}
    run = sparse_run("granet", every=every, start=start, stop=stop, alpha=alpha)
    for step, ((inputs, labels), (other, sparsifier)) in enumerate(
        zip(batches(), run, strict=True)
    ):
        reference_step(model, masks, inputs, labels)
        if (t0 <= step < t1 and (step - t0) % every == 0) or step == t1:
            share = (step - t0) / (t1 - t0)
            sparsity = SPARSITY * (1 - (1 - share) ** 3)
            moved = alpha / 2 * (1 + math.cos(math.pi * share))
            for name, param in model.named_parameters():
                if param.dim() < 2:
                    continue
                flat = param.detach().flatten()
                mask = masks.get(name, torch.ones_like(param, dtype=torch.bool)).flatten()
                active = [place for place in range(len(flat)) if mask[place]]
                keep = len(flat) - int(sparsity * len(flat) + 1e-9)
                by_size = lowest([float(flat[p].abs()) for p in active], len(active) - keep)
                gone = {active[place] for place in by_size}
                active = [place for place in active if place not in gone]
                count = int(moved * len(active))
                dropped = {active[p] for p in lowest([float(flat[p].abs()) for p in active], count)}
                kept = [place for place in active if place not in dropped]
                free = [place for place in range(len(flat)) if place not in set(kept)]
                gradient = param.grad.flatten()
                grown = {free[p] for p in lowest([-float(gradient[p].abs()) for p in free], count)}
                new = torch.zeros(len(flat), dtype=torch.bool)
                new[[*kept, *grown]] = True
                masks[name] = new.view(param.shape)
                with torch.no_grad():
                    # what comes back at once keeps its value; what is new starts at 0
                    still = {p for p in active if new[p]}
                    param.view(-1)[[p for p in range(len(flat)) if p not in still]] = 0
        assert_alike(model, other, masks, sparsifier)


@pytest.mark.parametrize("every", [6, 25])
def test_mest_is_its_papers_algorithm(every):
    until, alpha, weight = 0.75, 0.4, 0.1
    last = math.ceil(int(until * TOTAL) / every) * every
    last = min(last, (TOTAL - 1) // every * every)
    run = sparse_run("mest", every=every, until=until, alpha=alpha, coefficient=weight)
    model = net()
    masks = {}
    for step, ((inputs, labels), (other, sparsifier)) in enumerate(
        zip(batches(), run, strict=True)
    ):
        if step == 0:  # the first masks are the Sparsifier's own
            masks = {name: mask.clone() for name, mask in sparsifier.masks.items()}
            with torch.no_grad():
                for name, param in model.named_parameters():
                    if name in masks:
                        param[~masks[name]] = 0
        reference_step(model, masks, inputs, labels)
        if step > 0 and step % every == 0 and step <= last:
            surplus = alpha * (1 - step / last)
            for name, param in model.named_parameters():
                if name not in masks:
                    continue
                flat, gradient = param.detach().flatten(), param.grad.flatten()
                target = len(flat) - int(SPARSITY * len(flat) + 1e-9)
                active = [place for place in range(len(flat)) if masks[name].flatten()[place]]
                score = [float(flat[p].abs() + weight * gradient[p].abs()) for p in active]
                gone = {active[place] for place in lowest(score, len(active) - target)}
                kept = [place for place in active if place not in gone]
                more = min(len(flat), int((1 + surplus) * target)) - target
                stream = torch.Generator().manual_seed(stream_seed(0, "growth", step, name))
                drawn = torch.rand(param.shape, generator=stream).flatten()
                free = [place for place in range(len(flat)) if place not in set(kept)]
                grown = {free[p] for p in lowest([-float(drawn[p]) for p in free], more)}
                new = torch.zeros(len(flat), dtype=torch.bool)
                new[[*kept, *grown]] = True
                masks[name] = new.view(param.shape)
                with torch.no_grad():
                    param.view(-1)[[p for p in range(len(flat)) if p not in set(kept)]] = 0
        assert_alike(model, other, masks, sparsifier)


@pytest.mark.parametrize("salient", [0.0, 0.3, 0.9])
def test_srigl_is_its_papers_algorithm(salient):
    every, alpha, until = 7, 0.5, 0.75
    pattern = f"constant_fan_in:{salient:g}" if salient else "constant_fan_in"
    run = sparse_run("rigl", every=every, alpha=alpha, until=until, pattern=pattern)
    model, masks, ablated = net(), {}, 0
    # rows x floor(kept / rows), with 288 - 230 and 72 - 57 kept
    targets = {"0.weight": 24 * (58 // 24), "2.weight": 3 * (15 // 3)}
    for step, ((inputs, labels), (other, sparsifier)) in enumerate(
        zip(batches(), run, strict=True)
    ):
        if step == 0:
            masks = {name: mask.clone() for name, mask in sparsifier.masks.items()}
            assert {name: int(mask.sum()) for name, mask in masks.items()} == targets
            with torch.no_grad():
                for name, param in model.named_parameters():
                    if name in masks:
                        param[~masks[name]] = 0
        due = step > 0 and step % every == 0 and step < until * TOTAL
        if not due:
            reference_step(model, masks, inputs, labels)
        else:
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            share = alpha / 2 * (1 + math.cos(math.pi * step / (until * TOTAL)))
            for name, mask in masks.items():
                param = dict(model.named_parameters())[name]
                new, gone = srigl_mask(param, mask, share, salient, targets[name])
                ablated += gone
                with torch.no_grad():
                    param[~(mask & new)] = 0
                masks[name] = new
        assert_alike(model, other, masks, sparsifier)
    assert (ablated > 0) == (salient > 0)


def srigl_mask(param, mask, share, salient, budget):
    """Return the next mask of a layer, and how many rows were ablated: sections 3.1 and 3.2."""
    weight, gradient = param.detach().abs().tolist(), param.grad.abs().tolist()
    places = [(row, column) for row in range(len(weight)) for column in range(len(weight[0]))]
    width = len(weight[0])
    active = [place for place in places if mask[place]]
    count = int(share * len(active))
    by_weight = sorted(active, key=lambda p: (weight[p[0]][p[1]], [-p[0], -p[1]]))
    kept = set(by_weight[count:])
    inactive = [place for place in places if not mask[place]]
    by_gradient = sorted(inactive, key=lambda p: (-gradient[p[0]][p[1]], p))
    marked = kept | set(by_gradient[:count])
    alive = sorted({row for row, _ in active})
    found = {row: sum(1 for place in marked if place[0] == row) for row in alive}
    fan_in = budget / len(alive)
    least = max(1, -(-budget // width))
    strongest = sorted(alive, key=lambda row: (-found[row], row))[:least]
    stay = [row for row in alive if found[row] >= salient * fan_in or row in strongest]
    each = budget // len(stay)
    new = torch.zeros_like(mask)
    for row in stay:
        mine = [column for column in range(width) if (row, column) in kept]
        free = [column for column in range(width) if column not in mine]
        free.sort(key=lambda column: (-gradient[row][column], column))
        for column in [*mine, *free[: max(0, each - len(mine))]]:
            new[row, column] = True
    return new, len(alive) - len(stay)


@pytest.mark.parametrize("decay", [None, 0.2])
def test_str_is_its_papers_reparameterization(decay):
    """Gradients here come from autograd through the thresholds, in a forward pass of our own."""
    rates = {"lr": RATE, "momentum": 0.9, "weight_decay": 0.01}
    theirs = net()
    optimizer = torch.optim.SGD(theirs.parameters(), **rates)
    sparsifier = gapbench.Sparsifier(
        theirs,
        optimizer,
        "str",
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        s_initial=-3.0,
        s_decay=decay,
    )
    first, second = net()[0], net()[2]
    trained = [first.weight, first.bias, second.weight, second.bias]
    s = [torch.tensor(-3.0, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    own = torch.optim.SGD([{"params": trained}, {"params": s}], **rates)
    own.param_groups[1]["weight_decay"] = 0.01 if decay is None else decay

    def soft(weight, scalar):
        return torch.sign(weight) * torch.relu(torch.abs(weight) - torch.sigmoid(scalar))

    for inputs, labels in batches():
        own.zero_grad()
        hidden = torch.tanh(inputs @ soft(first.weight, s[0]).T + first.bias)
        logits = hidden @ soft(second.weight, s[1]).T + second.bias
        nn.functional.cross_entropy(logits, labels).backward()
        own.step()
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(inputs), labels).backward()
        sparsifier.step()
        for layer, scalar, param in zip(
            (first, second), s, (theirs[0].weight, theirs[2].weight), strict=True
        ):
            torch.testing.assert_close(param, soft(layer.weight, scalar), rtol=1e-11, atol=1e-13)
    sparse = 1 - sum(sparsifier.weights.active().values()) / (12 * 24 + 24 * 3)
    assert 0.05 < sparse < 0.99  # thresholds have grown, and stopped
    assert sparsifier.verify() == 0

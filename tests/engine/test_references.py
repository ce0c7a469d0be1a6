"""GraNet and MEST against references in plain torch, written from the papers, step by step."""

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
    assert sparsifier.verify() == 0


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

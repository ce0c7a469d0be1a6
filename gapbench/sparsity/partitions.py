"""How layers are split into partitions. Pure Python."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from gapbench.errors import UserError
from gapbench.methods.plan import Layers

Rule = Literal["contiguous", "interleaved", "random", "patterns"]
Groups = tuple[frozenset[str], ...]


def partition(
    layers: Layers,
    partitions: int,
    rule: Rule,
    rng: random.Random,
    patterns: Sequence[Sequence[str]] = (),
) -> Groups:
    """Split layers into groups that cover all of them and do not overlap.

    Args:
        layers: in model order.
        partitions: kappa, the number of groups.
        rule: "contiguous" cuts the model into consecutive pieces whose largest has as few weights
            as possible; "interleaved" deals layers out in turn; "random" deals them out shuffled;
            "patterns" follows `patterns`.
        rng: shuffles for the rule "random".
        patterns: shell-style name patterns of each group; the first group that matches a layer
            has it.

    Raises:
        UserError: if there are more groups than layers, or patterns do not fit the layers.
    """
    if not 1 <= partitions <= len(layers):
        raise UserError(
            f"partitions: {partitions} is not possible with {len(layers)} prunable layers: "
            f"give 1 to {len(layers)}"
        )
    names = [layer.name for layer in layers]
    if rule == "patterns":
        return _by_patterns(names, partitions, patterns)
    if rule == "contiguous":
        return _contiguous(layers, partitions)
    if rule == "random":
        rng.shuffle(names)
    return tuple(frozenset(names[group::partitions]) for group in range(partitions))


def _contiguous(layers: Layers, partitions: int) -> Groups:
    """Minimise the largest group by dynamic programming over cut positions."""
    count = len(layers)
    before = [0]
    for layer in layers:
        before.append(before[-1] + layer.numel)
    best = [[0.0] * (count + 1) for _ in range(partitions + 1)]
    cut = [[0] * (count + 1) for _ in range(partitions + 1)]
    best[1] = [float(total) for total in before]
    for groups in range(2, partitions + 1):
        for stop in range(groups, count + 1):
            choices = (
                (max(best[groups - 1][at], before[stop] - before[at]), at)
                for at in range(groups - 1, stop)
            )
            best[groups][stop], cut[groups][stop] = min(choices)
    stops = [count]
    for groups in range(partitions, 1, -1):
        stops.append(cut[groups][stops[-1]])
    bounds = [0, *reversed(stops)]
    return tuple(
        frozenset(layer.name for layer in layers[start:stop])
        for start, stop in zip(bounds, bounds[1:], strict=False)
    )


def _by_patterns(
    names: Sequence[str], partitions: int, patterns: Sequence[Sequence[str]]
) -> Groups:
    if len(patterns) != partitions:
        raise UserError(
            f"patterns: {len(patterns)} groups for {partitions} partitions: give one group each"
        )
    groups: list[set[str]] = [set() for _ in patterns]
    for name in names:
        matching = [
            i
            for i, group in enumerate(patterns)
            if any(fnmatchcase(name, p) for p in group)
        ]
        if not matching:
            raise UserError(f"patterns: layer {name} matches no group")
        groups[matching[0]].add(name)
    for number, group in enumerate(groups):
        if not group:
            raise UserError(
                f"patterns: group {number} ({', '.join(patterns[number])}) has no layer"
            )
    return tuple(frozenset(group) for group in groups)

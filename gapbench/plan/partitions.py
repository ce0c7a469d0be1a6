"""Rules that split layers into partitions. Pure Python."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from gapbench.errors import UserError
from gapbench.plan.phases import Layers

Rule = Literal["contiguous", "interleaved", "random", "patterns"]
Groups = tuple[frozenset[str], ...]
_Cut = tuple[tuple[int, ...], tuple[int, ...]]  # sizes of groups in falling order, their ends


def partition(
    layers: Layers,
    partitions: int,
    rule: Rule,
    rng: random.Random,
    patterns: Sequence[Sequence[str]] = (),
) -> Groups:
    """Split layers into disjoint, non-empty groups that together contain all layers.

    Args:
        layers: the layers, in model order.
        partitions: kappa, the number of groups.
        rule: "contiguous" cuts the model into consecutive pieces such that the largest piece has as
            few weights as possible; "interleaved" deals layers out in turn; "random" deals shuffled
            layers out; "patterns" follows `patterns`.
        rng: source of the shuffle of the rule "random".
        patterns: shell-style name patterns of each group, for the rule "patterns".

    Raises:
        UserError: if there are more groups than layers, or the patterns do not put every layer
            into exactly one group.
    """
    if not 1 <= partitions <= len(layers):
        raise UserError(
            f"partitions: {partitions} is not possible with {len(layers)} prunable layers: "
            f"give 1 to {len(layers)}"
        )
    if rule == "contiguous":
        return _contiguous(layers, partitions)
    names = [layer.name for layer in layers]
    if rule == "patterns":
        return _by_patterns(names, partitions, patterns)
    if rule == "random":
        rng.shuffle(names)
    return tuple(frozenset(names[group::partitions]) for group in range(partitions))


def _contiguous(layers: Layers, partitions: int) -> Groups:
    """Cut so that the largest group is as small as possible, then the second largest, and so on.

    Lists of group sizes in falling order compare in this way. A group that is added to two lists
    does not change the lists' order. So the best cut extends the best cut into one group less.
    """
    before = list(itertools.accumulate((layer.numel for layer in layers), initial=0))
    best: dict[int, _Cut] = {stop: ((size,), (stop,)) for stop, size in enumerate(before) if stop}
    for groups in range(2, partitions + 1):
        best = {
            stop: min(
                (_falling(sizes, before[stop] - before[at]), (*cuts, stop))
                for at, (sizes, cuts) in best.items()
                if at < stop
            )
            for stop in range(groups, len(before))
        }
    _, cuts = best[len(layers)]
    return tuple(
        frozenset(layer.name for layer in layers[start:stop])
        for start, stop in itertools.pairwise((0, *cuts))
    )


def _falling(sizes: tuple[int, ...], size: int) -> tuple[int, ...]:
    return tuple(sorted((*sizes, size), reverse=True))


def _by_patterns(
    names: Sequence[str], partitions: int, patterns: Sequence[Sequence[str]]
) -> Groups:
    if len(patterns) != partitions:
        raise UserError(
            f"patterns: {len(patterns)} groups for {partitions} partitions: give one each"
        )
    groups: list[set[str]] = [set() for _ in patterns]
    for name in names:
        fits = [
            number
            for number, group in enumerate(patterns)
            if any(fnmatchcase(name, pattern) for pattern in group)
        ]
        if len(fits) != 1:
            which = f"groups {', '.join(map(str, fits))}" if fits else "no group"
            raise UserError(f"patterns: layer {name} is in {which}: put it into exactly one group")
        groups[fits[0]].add(name)
    for number, group in enumerate(groups):
        if not group:
            raise UserError(
                f"patterns: group {number} ({', '.join(patterns[number])}) has no layer"
            )
    return tuple(frozenset(group) for group in groups)

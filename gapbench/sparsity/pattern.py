"""Patterns: named rules that say which masks of a layer are allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from gapbench.base.registry import Registry
from gapbench.errors import UserError
from gapbench.plan.phases import UNSTRUCTURED, Layer, Plan
from gapbench.sparsity.counts import Counts
from gapbench.sparsity.masks import top_mask

__all__ = ["UNSTRUCTURED", "Pattern", "pattern", "pattern_of", "patterns", "require_fit"]

P = TypeVar("P", bound="type[Pattern]")

LOWEST = -float("inf")


@dataclass(frozen=True)
class Move:
    """The arguments of `Pattern.drop_grow` for one layer."""

    drop: Tensor
    mask: Tensor
    growth: Tensor
    count: int
    active: int
    keep: int | None


class Pattern:
    """A rule for the masks of all layers; the base class of all patterns.

    A subclass is registered under its kind, and implements `select` and `holds`. People write a
    pattern as its kind, or in the form that `parse` reads.

    Attributes:
        kind: the registered name.
        form: the written forms of the pattern, for messages; by default the kind.
        text: the written form of this pattern.
        rounds_up: whether a layer whose count is below the minimum count keeps the minimum count;
            otherwise the layer is refused.
        keeps_counts: whether drop-and-grow leaves the number of active positions unchanged.
    """

    kind = ""
    form = ""
    text = ""
    keeps_counts = True
    rounds_up = False

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """Return the pattern that a text denotes, or None if the text has another kind.

        Raises:
            ValueError: if the numbers in the text are invalid.
        """
        return cls() if text == cls.kind else None

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return a mask of `kept` and of the `count` largest other scores that the pattern allows.

        Args:
            scores: score of every position; among equal scores the lower index wins.
            count: number of positions in addition to `kept`; the total is a count from `fit`.
            kept: mask of positions that are active in any case; None: no position.
        """
        raise NotImplementedError

    def shrink(self, scores: Tensor, count: int, mask: Tensor) -> Tensor:
        """Return a mask of the `count` largest scores inside a larger mask.

        Args:
            scores: score of every position; scores outside the mask are lower than all inside.
            count: number of positions that stay, a count from `fit`.
            mask: the current mask.
        """
        return self.select(scores, count)

    def largest(
        self, scores: Sequence[Tensor], counts: Sequence[int], masks: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Return masks of the largest scores of several layers, each inside its current mask.

        Args:
            scores: non-negative scores of each layer; they may be overwritten.
            counts: number of positions that each layer keeps.
            masks: the current masks; a layer with None is dense.
        """
        return [
            self.select(score, count)
            if mask is None
            else self.shrink(score.masked_fill_(~mask, -1), count, mask)
            for score, count, mask in zip(scores, counts, masks, strict=True)
        ]

    def moved(self, moves: Sequence[Move]) -> list[Tensor]:
        """Return the results of `drop_grow` for several layers."""
        return [
            self.drop_grow(move.drop, move.mask, move.growth, move.count, move.active, move.keep)
            for move in moves
        ]

    def holds(self, mask: Tensor) -> bool:
        """Say whether a mask satisfies the pattern."""
        raise NotImplementedError

    def fit(self, layer: Layer, keep: int) -> int:
        """Return the largest count up to `keep` that a mask of the layer can have.

        If `keep` is below the pattern's minimum count, the result is the minimum count.
        """
        return keep

    def misfit(self, layer: Layer, keep: int) -> str | None:
        """Return why the layer cannot have a mask of `keep` positions, or None if it can."""
        return None

    def slack(self, layer: Layer) -> int:
        """Return by how many positions a mask may miss its count after drop-and-grow."""
        return 0

    def random(self, shape: tuple[int, ...], keep: int, generator: torch.Generator) -> Tensor:
        """Return a random mask of exactly `keep` positions, drawn on the CPU."""
        return self.select(torch.rand(shape, generator=generator), keep)

    def drop_grow(
        self,
        drop: Tensor,
        mask: Tensor,
        growth: Tensor,
        count: int,
        active: int | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """Drop the `count` active positions of the lowest `drop` score and grow as many.

        Growth chooses among all positions that are not kept, so a dropped position may grow again
        (RigL, algorithm 1).

        Args:
            drop: drop score of every position: the weights' magnitude (RigL, SET), or another.
            mask: the current boolean mask, of the same shape.
            growth: growth score of every position: |dense gradient| (RigL), or random (SET).
            count: number of positions that move; at most the number of active positions.
            active: number of active positions, if known: counting waits for the device.
            keep: target number of active positions, if slack has left fewer.
        """
        active = int(mask.sum()) if active is None else active
        meant = active if keep is None else max(active, keep)
        return self.replace(drop, mask, growth, min(count, active), active, meant)

    def replace(
        self, drop: Tensor, mask: Tensor, growth: Tensor, count: int, active: int, meant: int
    ) -> Tensor:
        """Do the work of `drop_grow` with known counts; patterns with own rules override this."""
        kept = top_mask(drop.masked_fill(~mask, LOWEST), active - count)
        return self.select(growth, count, kept)


def finite(scores: Tensor) -> Tensor:
    """Return scores in which the largest or lowest finite number replaces NaN and infinities."""
    most = torch.finfo(scores.dtype).max
    return scores.nan_to_num(nan=most, posinf=most, neginf=-most)


patterns: Registry[type[Pattern]] = Registry("pattern", "gapbench.sparsity.patterns")


def pattern(kind: str) -> Callable[[P], P]:
    """Register a subclass of `Pattern`."""

    def add(cls: P) -> P:
        patterns.register(kind)(cls)
        cls.kind = kind
        cls.form = cls.form or kind
        cls.text = cls.text or kind
        return cls

    return add


def pattern_of(text: str | Pattern) -> Pattern:
    """Return the pattern that a text denotes.

    Raises:
        UserError: if the text denotes no pattern; the message lists the valid forms.
    """
    if isinstance(text, Pattern):
        return text
    for kind in patterns if isinstance(text, str) else ():
        try:
            found = patterns[kind].parse(text)
        except ValueError as error:
            raise UserError(f"pattern: {text}: {error}") from None
        if found is not None:
            return found
    forms = ", ".join(patterns[kind].form for kind in patterns)
    raise UserError(f"pattern: {text!r} is unknown; valid: {forms}")


def require_fit(pattern: Pattern, plan: Plan, counts: Counts | None) -> None:
    """Check that masks of every layer can have a pattern.

    Args:
        pattern: the pattern.
        plan: the method's plan.
        counts: final kept counts of the layers; None if magnitudes decide.

    Raises:
        UserError: naming the first layer that the pattern does not fit; or if counts are not known,
            or if the method learns its masks.
    """
    if pattern.text != UNSTRUCTURED and plan.budget != "layers":
        does = "learns its masks" if plan.budget == "emergent" else "moves weights between layers"
        raise UserError(f"pattern: this method {does}: {pattern.text} is not possible")
    if counts is None:
        if pattern.text != UNSTRUCTURED:
            raise UserError(
                f"pattern: {pattern.text} needs counts before training: choose the "
                "distribution uniform or erk"
            )
        return
    for layer in counts.layers:
        keep, asked = counts.of(layer.name), counts.asked(layer.name)
        if asked == layer.numel:
            continue  # a dense layer needs no pattern
        reason = pattern.misfit(layer, keep)
        if reason is None and keep > asked and not pattern.rounds_up:
            reason = f"{layer.name} would keep {asked} weights, and has at least {keep}"
        if reason:
            raise UserError(f"pattern: {pattern.text} does not fit: {reason}: leave it dense")

"""Patterns: which masks of a layer are allowed, as values with a name."""

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
    """What `Pattern.drop_grow` is asked for of one layer; its arguments."""

    drop: Tensor
    mask: Tensor
    growth: Tensor
    count: int
    active: int
    keep: int | None


class Pattern:
    """A rule that the masks of all layers keep; the base class is for subclasses.

    A subclass is registered under its kind, and gives `select` and `holds`. People write a pattern
    as its kind, or in the form that `parse` reads.

    Attributes:
        kind: the registered name.
        form: how people write it, for messages; as its kind by default.
        text: how this one is written.
        rounds_up: whether a layer that would keep less than the least that is allowed keeps that;
            otherwise it is refused.
        keeps_counts: whether drop-and-grow leaves as many active positions as there were.
    """

    kind = ""
    form = ""
    text = ""
    keeps_counts = True
    rounds_up = False

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """Return the pattern that a text means, or None if it is of another kind.

        Raises:
            ValueError: saying what is wrong with its numbers.
        """
        return cls() if text == cls.kind else None

    def select(self, scores: Tensor, count: int, kept: Tensor | None = None) -> Tensor:
        """Return a mask of the `count` largest scores that the pattern allows, beside `kept`.

        Args:
            scores: of every position; of equal ones the lower index wins.
            count: how many positions join those that are kept; in all, a count that `fit` returned.
            kept: positions that are active in any case; none if it is not given.
        """
        raise NotImplementedError

    def shrink(self, scores: Tensor, count: int, mask: Tensor) -> Tensor:
        """Return a mask of the `count` largest scores inside of a mask that has more positions.

        Args:
            scores: of every position, lower outside of the mask than anywhere in it.
            count: how many stay: a count that `fit` returned.
            mask: the present one.
        """
        return self.select(scores, count)

    def largest(
        self, scores: Sequence[Tensor], counts: Sequence[int], masks: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """Return masks of the largest scores of several layers, each inside of its present mask.

        Args:
            scores: of the layers, not negative; they may be overwritten.
            counts: how many positions each keeps.
            masks: the present ones; a layer without one is dense.
        """
        return [
            self.select(score, count)
            if mask is None
            else self.shrink(score.masked_fill_(~mask, -1), count, mask)
            for score, count, mask in zip(scores, counts, masks, strict=True)
        ]

    def moved(self, moves: Sequence[Move]) -> list[Tensor]:
        """Return what `drop_grow` returns for several layers."""
        return [
            self.drop_grow(move.drop, move.mask, move.growth, move.count, move.active, move.keep)
            for move in moves
        ]

    def holds(self, mask: Tensor) -> bool:
        """Say whether a mask keeps the rule."""
        raise NotImplementedError

    def fit(self, layer: Layer, keep: int) -> int:
        """Return the count nearest to `keep`, and not above it, that a mask of the layer can have.

        A layer has at least the least that the pattern allows, if `keep` is less.
        """
        return keep

    def misfit(self, layer: Layer, keep: int) -> str | None:
        """Return why the layer cannot have such a mask of `keep` positions, or None if it can."""
        return None

    def slack(self, layer: Layer) -> int:
        """Return by how many positions a mask may be below its count after drop-and-grow."""
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

        Growth chooses among all positions that are not kept, so that a position dropped now may
        come back (RigL, algorithm 1).

        Args:
            drop: score of every position: the weights' magnitude (RigL, SET), or another.
            mask: the present boolean mask, of the same shape.
            growth: score of every position: |dense gradient| (RigL), or random numbers (SET).
            count: how many positions move; at most as many as are active.
            active: how many are active, where that is known: counting them waits for the device.
            keep: how many are meant to be, where slack has left fewer.
        """
        active = int(mask.sum()) if active is None else active
        meant = active if keep is None else max(active, keep)
        return self.replace(drop, mask, growth, min(count, active), active, meant)

    def replace(
        self, drop: Tensor, mask: Tensor, growth: Tensor, count: int, active: int, meant: int
    ) -> Tensor:
        """Do what `drop_grow` says, all counts being known; patterns with own rules override it."""
        kept = top_mask(drop.masked_fill(~mask, LOWEST), active - count)
        return self.select(growth, count, kept)


def finite(scores: Tensor) -> Tensor:
    """Return scores in which NaN and infinities are the largest and lowest finite numbers."""
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
    """Return the pattern that a text means.

    Raises:
        UserError: if there is none, with the forms there are.
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
        plan: of the method.
        counts: how many weights each layer keeps in the end; None where magnitudes decide.

    Raises:
        UserError: about the first layer that cannot have it, if its counts are not known, or if the
            method learns its masks.
    """
    if pattern.text != UNSTRUCTURED and plan.budget != "layers":
        does = "learns its masks" if plan.budget == "emergent" else "moves weights between layers"
        raise UserError(f"pattern: this method {does}: {pattern.text} is not possible")
    if counts is None:
        if pattern.text != UNSTRUCTURED:
            raise UserError(
                f"pattern: {pattern.text} needs counts that are known beforehand: choose the "
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
            raise UserError(f"pattern: {pattern.text} does not fit: {reason}; leave it dense")

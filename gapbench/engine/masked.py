"""The masked weights of one model: prune, grow, drop and grow, and hold masked weights at zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from gapbench.sparsity.joined import clear_outside, intersected, portions
from gapbench.sparsity.masks import counts
from gapbench.sparsity.pattern import LOWEST, Move, Pattern

Score = Callable[[str, Tensor], Tensor | None]  # of a layer's name and weights


class MaskedWeights:
    """The prunable parameters of a model, and their optimiser.

    A layer without an entry in `masks` is dense. Masked weights are exactly 0. The optimiser's
    moments are 0 at positions that become active.

    Args:
        params: prunable parameters by name, in model order.
        optimizer: the optimiser; its state tensors of a weight's shape follow every mask change.
        pattern: the pattern of the masks.
    """

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        pattern: Pattern,
    ) -> None:
        self.params = dict(params)
        self.optimizer = optimizer
        self.pattern = pattern
        self.masks: dict[str, Tensor] = {}
        self._sparse: list[Tensor] = []
        self._keep: list[Tensor] = []
        self._placed = False
        self._active: dict[str, int] | None = None

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Replace all masks; layers that `masks` lacks become dense. Weights stay as they are."""
        new = dict(masks)
        self.masks = {}
        self._place(new)
        self._refresh()

    def active(self) -> dict[str, int]:
        """Return the number of active weights of every layer."""
        if self._active is None:
            self._active = {name: param.numel() for name, param in self.params.items()}
            self._active |= counts(self.masks)
        return self._active

    def tensors(self) -> Iterator[Tensor]:
        """Yield the weights, and the optimiser's moments of the weights' shapes."""
        for name, param in self.params.items():
            yield param
            yield from self._moments(name)

    @torch.no_grad()
    def hold(self) -> None:
        """Set masked weights to zero after an optimiser step.

        On the CPU a product with int8 views of the masks takes a third to a half of the time of a
        product with bool masks.
        """
        if self._sparse:
            torch._foreach_mul_(self._sparse, self._keep)

    def place(self) -> list[Tensor]:
        """Return factors of 0 and 1; from now on `hold` multiplies all weights with the factors.

        The factors keep their addresses while masks change, as a CUDA graph needs. They have the
        weights' dtype, so one kernel serves all layers, and take as much memory as the weights.
        """
        if not self._placed:
            self._placed = True
            self._sparse = list(self.params.values())
            self._keep = [torch.empty_like(p, requires_grad=False) for p in self._sparse]
            self._refresh()
        return self._keep

    @torch.no_grad()
    def clip_gradients(self, parameters: Iterable[nn.Parameter], max_norm: float) -> None:
        """Scale gradients so that their norm over the active weights is at most `max_norm`.

        The norm leaves out gradients at masked positions. These gradients are scaled with the
        others and are kept, since RigL grows where they are largest.

        Args:
            parameters: all trained parameters. Under data parallelism their gradients must already
                be averaged, so that every rank computes the same norm.
            max_norm: the largest Euclidean norm.
        """
        masks = {self.params[name]: mask for name, mask in self.masks.items()}
        trained: list[nn.Parameter] = []
        existing: list[Tensor] = []
        for param in parameters:
            if param.grad is not None:
                mask = masks.get(param)
                trained.append(param)
                existing.append(param.grad if mask is None else param.grad.where(mask, 0))
        norm = nn.utils.get_total_norm(existing)
        nn.utils.clip_grads_with_norm_(trained, max_norm, norm)

    @torch.no_grad()
    def mask_by(self, masks: Mapping[str, Tensor]) -> None:
        """Give layers new masks, and zero weights and moments outside the masks."""
        for names in self._portions(masks):
            self._place({name: masks[name] for name in names})
            self._clear_outside({name: self.masks[name] for name in names})
        self._refresh()

    def largest(self, keep: Mapping[str, int]) -> dict[str, Tensor]:
        """Return masks of the `keep[layer]` largest active weights of each layer."""
        found: dict[str, Tensor] = {}
        for names in self._portions(keep):
            magnitudes = torch._foreach_abs([self.params[name].detach() for name in names])
            masks = [self.masks.get(name) for name in names]
            own = self.pattern.largest(magnitudes, [keep[name] for name in names], masks)
            found.update(zip(names, own, strict=True))
        return {name: found[name] for name in keep}

    @torch.no_grad()
    def grow(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Make layers dense: new positions start at 0 without momentum.

        Returns:
            the layers' earlier masks.
        """
        chosen = set(names)
        dropped = {n: self.masks.pop(n) for n in self.params if n in chosen and n in self.masks}
        for names in self._portions(dropped):
            self._clear_outside({name: dropped[name] for name in names})
        self._refresh()
        return dropped

    @torch.no_grad()
    def zero_strays(self) -> None:
        """Set masked weights that are not zero to zero; -0.0 counts as zero and stays."""
        for name, mask in self.masks.items():
            param = self.params[name]
            param.masked_fill_(~mask & (param != 0), 0)

    @torch.no_grad()
    def hide_gradients(self, keep: bool) -> dict[str, Tensor]:
        """Zero gradients at masked positions, for optimisers that mix the entries of a parameter.

        Returns:
            the original gradients by layer, if `keep`.
        """
        kept: dict[str, Tensor] = {}
        for name, mask in self.masks.items():
            if (gradient := self.params[name].grad) is not None:
                if keep:
                    kept[name] = gradient.clone()
                gradient.masked_fill_(~mask, 0)
        return kept

    @torch.no_grad()
    def drop_and_grow(
        self, fraction: float, drop: Score, grow: Score, keep: Mapping[str, int]
    ) -> dict[str, float]:
        """Move int(fraction x active) positions of every sparse layer.

        The positions of the lowest `drop` score become masked; the positions of the largest `grow`
        score become active. A layer without a score, such as a layer that took no part in the loss,
        stays as it is.

        Args:
            fraction: share of the active positions that move.
            drop: the score for dropping.
            grow: the score for growing.
            keep: number of active positions of each layer at the end of the plan.

        Returns:
            intersection over union of each layer's masks before and after.
        """
        active = self.active()
        names: list[str] = []
        common: list[Tensor] = []
        for portion in self._portions(self.masks):
            old = {name: self.masks[name] for name in portion}
            moves: dict[str, Move] = {}
            for name, mask in old.items():
                param, count = self.params[name], int(fraction * active[name])
                going, coming = drop(name, param), grow(name, param)
                if going is not None and coming is not None:
                    moves[name] = Move(going, mask, coming, count, active[name], keep.get(name))
            if moves:
                new = self.pattern.moved(list(moves.values()))
                self._place(dict(zip(moves, new, strict=True)))
            kept, both = intersected(list(old.values()), [self.masks[n] for n in portion])
            self._clear_outside(dict(zip(portion, kept, strict=True)))
            common.append(both)
            names += portion
        self._refresh()
        if self.pattern.keeps_counts:  # as many are grown as are dropped
            self._active = active
        now = self.active()
        waited = torch.cat(common).tolist() if common else []  # once for the device
        found = dict(zip(names, waited, strict=True))
        unions = {name: active[name] + now[name] - found[name] for name in self.masks}
        return {n: found[n] / union if union else 1.0 for n, union in unions.items()}

    @torch.no_grad()
    def resize(self, keep: Mapping[str, int], drop: Score, grow: Score) -> dict[str, float]:
        """Give each layer `keep[layer]` active positions: drop lowest or grow largest scores.

        Returns:
            intersection over union of each layer's masks before and after.
        """
        active, overlap = dict(self.active()), {}
        for name, count in keep.items():
            mask, param = self.masks[name], self.params[name]
            scores = (drop if count < active[name] else grow)(name, param)
            if scores is None or count == active[name]:
                overlap[name] = 1.0
                continue
            if count < active[name]:
                new = self.pattern.shrink(scores.masked_fill(~mask, LOWEST), count, mask)
            else:
                new = self.pattern.select(scores, count - active[name], mask)
            self._place({name: new})
            self._clear_outside({name: mask & self.masks[name]})
            overlap[name] = min(count, active[name]) / max(count, active[name])
        self._refresh()
        return overlap

    def moments_by_name(self, name: str) -> dict[str, Tensor]:
        """Return the optimiser's state tensors of a weight's shape, by their name in the state."""
        param = self.params[name]
        state = self.optimizer.state.get(param, {})
        return {
            key: value
            for key, value in state.items()
            if torch.is_tensor(value) and value.shape == param.shape
        }

    def _portions(self, names: Iterable[str]) -> Iterator[list[str]]:
        return portions({name: self.params[name] for name in names})

    def _place(self, masks: Mapping[str, Tensor]) -> None:
        """Copy masks to the devices of their weights, in the memory layouts of the weights."""
        placed = {
            name: torch.empty_like(self.params[name], dtype=torch.bool, requires_grad=False)
            for name in masks
        }
        if placed:
            torch._foreach_copy_(list(placed.values()), list(masks.values()))
        self.masks.update(placed)

    def _clear_outside(self, masks: Mapping[str, Tensor]) -> None:
        """Zero the weights and moments of the layers outside the masks."""
        owned = [[self.params[name], *self._moments(name)] for name in masks]
        clear_outside(list(masks.values()), owned)

    def _refresh(self) -> None:
        self._active = None
        if not self._placed:
            self._sparse = [self.params[name] for name in self.masks]
            self._keep = [mask.view(torch.int8) for mask in self.masks.values()]
            return
        keep = dict(zip(self.params, self._keep, strict=True))
        if self.masks:
            torch._foreach_copy_([keep.pop(name) for name in self.masks], list(self.masks.values()))
        for dense in keep.values():
            dense.fill_(1)

    def _moments(self, name: str) -> Iterator[Tensor]:
        yield from self.moments_by_name(name).values()

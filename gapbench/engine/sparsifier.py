"""`Sparsifier`: executes a plan on a model and its optimiser, in place of `optimizer.step()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gapbench.base.streams import stream_seed
from gapbench.engine.arguments import check_numbers, checked_layers, fingerprint, plan_of
from gapbench.engine.changes import Change, Event
from gapbench.engine.ledger import Ledger
from gapbench.engine.masked import MaskedWeights
from gapbench.engine.replicas import check_equal
from gapbench.engine.rounds import (
    BranchResult,
    RoundStart,
    followed_layer,
    merged,
    restore,
    snapshot,
    tensors,
)
from gapbench.engine.targets import Targets
from gapbench.errors import UserError
from gapbench.plan.phases import DropGrow, Gradual, Plan, Segment
from gapbench.sparsity.exploration import Coverage, iou, mask_error
from gapbench.sparsity.layers import prunable
from gapbench.sparsity.masks import pack, random_mask, unpack


class Sparsifier:
    """Trains a model sparsely: call `step()` where the loop had `optimizer.step()`.

    At the end of every phase of the plan `step()` also prunes and grows. A loop that wants to
    look at the model between the two sets `manual_phases` and calls `next_phase()` itself whenever
    `phase_ended` says so.

    Under data parallelism every rank has its own Sparsifier with the same arguments; gradients
    must be averaged before `step()`, as `DistributedDataParallel` does, and equal masks on all
    ranks are verified at every change.

    Args:
        model: the module to train; it is changed only through its weights.
        optimizer: any torch.optim optimiser of its parameters.
        method: a registered method's name, or a `Plan`.
        sparsity: fraction of zeros among the prunable weights, in [0, 1).
        epochs: the budget in machine-epochs; not needed with a `Plan`.
        steps_per_epoch: optimiser steps of one epoch.
        distribution: how the zeros are spread over layers: uniform, erk or global_magnitude.
        layers: names of the prunable parameters; all conv and linear weights by default.
        seed: seed of masks, partitions and random growth.
        manual_phases: leave phase changes to the caller.
        options: the method's own options.

    Raises:
        UserError: if a name is unknown or the arguments do not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: str | Plan = "c_gap",
        *,
        sparsity: float,
        steps_per_epoch: int,
        epochs: int | None = None,
        distribution: str = "uniform",
        layers: Sequence[str] | None = None,
        seed: int = 0,
        manual_phases: bool = False,
        **options: Any,
    ) -> None:
        check_numbers(sparsity, steps_per_epoch, epochs)
        names = prunable(model) if layers is None else tuple(layers)
        self.model = model
        self.optimizer = optimizer
        self.layers = checked_layers(model, optimizer, names)
        self.plan = plan_of(method, self.layers, epochs, seed, options)
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.targets = Targets(self.layers, sparsity, distribution, self.plan)
        own = tensors(model)
        self.weights = MaskedWeights({name: own[name] for name in names}, optimizer)  # type: ignore[misc]
        self._shapes = {layer.name: layer.shape for layer in self.layers}
        self.coverage = Coverage(self._shapes)
        self._ledger = Ledger(self.layers)
        self.steps = 0
        self._manual = manual_phases
        self._index = 0
        self._uncounted = 0  # steps since the ledger was last told
        self._before_growth: dict[str, Tensor] = {}
        self._round: RoundStart | None = None
        self._results: list[BranchResult] = []
        self._changes: list[Change] = []
        self._start()

    @property
    def segment(self) -> Segment:
        """The phase that the next step belongs to (the last one, once the plan is done)."""
        return self.plan.segments[self._index]

    @property
    def done(self) -> bool:
        """Whether all epochs of the plan are trained."""
        return self.steps >= self.plan.epochs * self.steps_per_epoch

    @property
    def phase_ended(self) -> bool:
        """Whether the phase is trained to its end and the next one has not been entered."""
        return self.steps >= self.segment.stop * self.steps_per_epoch and not self._is_last

    @property
    def masks(self) -> dict[str, Tensor]:
        """Boolean masks of the layers that are sparse now."""
        return self.weights.masks

    def step(self) -> None:
        """Update weights from their gradients, keep masked ones at zero, and follow the plan."""
        if self.phase_ended:
            raise RuntimeError("the phase has ended: call next_phase() before the next step()")
        update = self.segment.phase.update
        step = self.steps - self.segment.start * self.steps_per_epoch
        length = self.segment.phase.epochs * self.steps_per_epoch
        due = update is not None and update.due(step, length)
        if due and isinstance(update, DropGrow) and update.replaces_step:
            self._drop_and_grow(update, update.fraction(step, length))
        else:
            self.optimizer.step()
            self.weights.hold()
            self._uncounted += 1
            if due and isinstance(update, DropGrow):
                self._drop_and_grow(update, update.fraction(step, length))
            elif due and isinstance(update, Gradual):
                self._prune(tuple(self.weights.params), update.progress(step, length))
        self.steps += 1
        if self.phase_ended and not self._manual:
            self.next_phase()

    def next_phase(self) -> None:
        """Leave the phase that has ended and enter the next one.

        Raises:
            RuntimeError: if the phase has not ended.
        """
        if not self.phase_ended:
            raise RuntimeError("the phase has not ended: train on before calling next_phase()")
        self._leave()
        following = self.plan.segments[self._index + 1]
        if self.segment.branch is not None:
            self._results.append(self._hand_back())
            if following.part != self.segment.part:
                self._merge()
        self._enter(self._index + 1)

    def changes(self) -> list[Change]:
        """Return the mask changes since the last call, in order."""
        self._count_steps()
        drained, self._changes = self._changes, []
        return drained

    @property
    def ledger(self) -> Ledger:
        """What the run has cost so far; in a P-GaP branch, up to the round's start and in it."""
        self._count_steps()
        return self._ledger

    def densities(self) -> dict[str, float]:
        """Return the current density of every prunable layer."""
        active = self.weights.active()
        return {layer.name: active[layer.name] / layer.numel for layer in self.layers}

    def jump_to_branch(self, branch: int) -> None:
        """Go from the start of a parallel round to the start of its branch `branch`.

        Raises:
            RuntimeError: if this is not the start of a parallel round.
        """
        self._require_round_start()
        self._return_to_round_start()
        index = self._index + branch
        self.steps = self.plan.segments[index].start * self.steps_per_epoch
        self._enter(index)

    def finish_branch(self) -> BranchResult:
        """Prune what the finished branch grew, and return what it hands back."""
        self._leave()
        return self._hand_back()

    def finish_round(self, results: Sequence[BranchResult]) -> None:
        """From the start of a parallel round go to its end, with the results of all its branches.

        Raises:
            RuntimeError: if this is not the start of a parallel round, or results are missing.
        """
        self._require_round_start()
        if len(results) != self.segment.branches:
            raise RuntimeError("a round ends with one result of each of its branches")
        self._results = list(results)
        self._index += self.segment.branches - 1
        self.steps = self.segment.stop * self.steps_per_epoch
        self._merge()
        self._enter(self._index + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the model's and the optimiser's own state; masks are packed."""
        return {
            "of": fingerprint(self.plan, self.targets),
            "index": self._index,
            "steps": self.steps,
            "masks": _packed(self.weights.masks),
            "before_growth": _packed(self._before_growth),
            "round": None if self._round is None else vars(self._round),
            "results": [vars(result) for result in self._results],
            "coverage": self.coverage.state_dict(),
            "ledger": self.ledger.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned; load model and optimiser beside it.

        Raises:
            UserError: if the state belongs to other layers, or another plan or sparsity.
        """
        foreign = sorted(set(state["ledger"]["uses"]) ^ set(self._shapes))
        if foreign:
            raise UserError(f"sparsifier state: its layers are not this model's: {foreign[0]}")
        if state["of"] != fingerprint(self.plan, self.targets):
            raise UserError("sparsifier state: it is of another plan, sparsity or distribution")
        self._index = state["index"]
        self.steps = state["steps"]
        self._uncounted = 0
        self._changes = []
        self.weights.set_masks(self._unpacked(state["masks"]))
        self._before_growth = self._unpacked(state["before_growth"])
        self._round = None if state["round"] is None else RoundStart(**state["round"])
        self._results = [BranchResult(**result) for result in state["results"]]
        self.coverage.load_state_dict(state["coverage"])
        self._ledger.load_state_dict(state["ledger"])

    def verify(self) -> int:
        """Check the weights themselves at the plan's end; return how many active ones are zero.

        Raises:
            UserError: naming the layers that miss their targets.
        """
        early = "" if self.done else f"; the plan has not ended: {self.steps} steps are done"
        return self.targets.verify(self.weights.params, self.weights.masks, early)

    @property
    def _is_last(self) -> bool:
        return self._index == len(self.plan.segments) - 1

    def _start(self) -> None:
        if self.plan.initial == "random":
            keep = self.targets.initial()
            masks = {
                name: random_mask(shape, keep[name], self._random("mask", name))
                for name, shape in self._shapes.items()
            }
            self.weights.mask_by(masks)
            self._record("initial", tuple(masks))
        else:
            sparse = tuple(n for n in self.weights.params if n not in self.segment.phase.grow)
            if sparse:
                self._prune(sparse)
        self._enter(0)

    def _enter(self, index: int) -> None:
        self._count_steps()
        self._index = index
        segment = self.segment
        if segment.branch == 0:
            self._keep_round_start()
        elif segment.branch is not None:
            self._return_to_round_start()
        if segment.phase.restart and self.steps > 0:
            self.optimizer.state.clear()
        self._before_growth = self.weights.grow(segment.phase.grow)
        self.coverage.update(self.weights.masks)
        if self._before_growth:
            self._record("grow", tuple(self._before_growth))

    def _leave(self) -> None:
        grown = self.segment.phase.grow
        if grown and self.segment.phase.update is None:
            self._prune(tuple(name for name in self.weights.params if name in grown))

    def _prune(self, names: tuple[str, ...], progress: float = 1.0) -> None:
        """Prune layers together to `progress` times their final sparsity."""
        self._count_steps()
        params = {name: self.weights.params[name] for name in names}
        keep = self.targets.keep(params, self.weights.masks, progress)
        masks = self.weights.largest(keep)
        error = mask_error(params, masks)
        self.weights.mask_by(masks)
        masks = {name: self.weights.masks[name] for name in names}
        overlap = iou({n: old for n, old in self._before_growth.items() if n in masks}, masks)
        self._before_growth = {}
        self._record("prune", names, error, overlap or None)

    def _drop_and_grow(self, update: DropGrow, fraction: float) -> None:
        self._count_steps()
        if update.score == "gradient":
            self._ledger.add_dense_gradient(self.weights.active())
        elif update.replaces_step:
            self._ledger.add_steps(self.weights.active(), 1)
        overlap = self.weights.drop_and_grow(
            fraction,
            _dense_gradient if update.score == "gradient" else self._random_score,
        )
        self.coverage.update(self.weights.masks)
        self._record("update", tuple(overlap), overlap=overlap)

    def _random_score(self, name: str, param: Tensor) -> Tensor:
        generator = self._random("growth", self.steps, name)
        return torch.rand(param.shape, generator=generator).to(param.device)

    def _random(self, *path: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, *path))

    def _count_steps(self) -> None:
        self._ledger.add_steps(self.weights.active(), self._uncounted)
        self._uncounted = 0

    def _record(
        self,
        event: Event,
        layers: tuple[str, ...],
        error: float | None = None,
        overlap: dict[str, float] | None = None,
    ) -> None:
        check_equal(self.weights.masks)
        self._changes.append(Change(event, self.steps, layers, error, overlap, self.densities()))

    def _require_round_start(self) -> None:
        if self.segment.branch != 0 or self.steps != self.segment.start * self.steps_per_epoch:
            raise RuntimeError("this is not the start of a parallel round")

    def _keep_round_start(self) -> None:
        self._round = RoundStart(
            snapshot(self.model),
            _packed(self.weights.masks),
            self.coverage.state_dict(),
            self._ledger.state_dict(),
        )
        self._results = []

    def _return_to_round_start(self) -> None:
        start = self._started_round
        restore(self.model, start.tensors)
        self.weights.set_masks(self._unpacked(start.masks))
        self.coverage.load_state_dict(start.coverage)
        self._ledger.load_state_dict(start.ledger)
        self._uncounted = 0

    @property
    def _started_round(self) -> RoundStart:
        if self._round is None:
            raise RuntimeError("no parallel round has been started")
        return self._round

    def _hand_back(self) -> BranchResult:
        self._count_steps()
        grown = self.segment.phase.grow
        state = snapshot(self.model)
        followed = followed_layer(state, tuple(self.weights.params))
        return BranchResult(
            layers={name: state[name] for name in sorted(grown)},
            masks=_packed({name: self.weights.masks[name] for name in sorted(grown)}),
            others={n: state[n] for n, near in followed.items() if near is None or near in grown},
            ledger=self._ledger.since(self._started_round.ledger),
        )

    def _merge(self) -> None:
        self._return_to_round_start()
        followed = followed_layer(tensors(self.model), tuple(self.weights.params))
        restore(self.model, merged(self._results, followed))
        for result in self._results:
            self._ledger.add(result.ledger)
        masks = {name: mask for result in self._results for name, mask in result.masks.items()}
        self.weights.set_masks(self._unpacked(masks))
        self.coverage.update({})  # every layer was dense in its own branch
        self._round, self._results = None, []
        self._record("merge", tuple(self.weights.params))

    def _unpacked(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: unpack(masks[name], self._shapes[name]) for name in masks}


def _dense_gradient(_: str, param: Tensor) -> Tensor:
    return torch.zeros_like(param) if param.grad is None else param.grad.detach().abs()


def _packed(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: pack(mask) for name, mask in masks.items()}

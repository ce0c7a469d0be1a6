"""Executes a plan step by step: optimiser steps, prunes, growth, parallel rounds, states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gapbench.base.streams import stream_seed
from gapbench.engine.arguments import (
    Distribution,
    check_numbers,
    checked_layers,
    fingerprint,
    plan_of,
    require_changes,
    require_own_state,
    require_sparse_end,
    spread_of,
)
from gapbench.engine.branching import Round, packed, unpacked
from gapbench.engine.changes import Change, Event
from gapbench.engine.choice import Chosen, chosen_names, warn_of_dense
from gapbench.engine.guards import Fresh, SoleCaller, Wiring, claim, doubt, is_elementwise
from gapbench.engine.ledger import Ledger, LedgerState
from gapbench.engine.masked import MaskedWeights
from gapbench.engine.moves import Moves
from gapbench.engine.replicas import check_equal
from gapbench.engine.rounds import BranchResult, tensors
from gapbench.engine.targets import Targets
from gapbench.engine.transformed import Transformed
from gapbench.errors import UserError, choose
from gapbench.plan.phases import Plan, Segment
from gapbench.plan.update import Update
from gapbench.sparsity.exploration import Coverage, iou, mask_error
from gapbench.sparsity.pattern import UNSTRUCTURED, Pattern, pattern_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Executor:
    """Executes a plan on a model and its optimiser; `Sparsifier` describes the arguments."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: str | Plan = "c_gap",
        *,
        sparsity: float | None = None,
        steps_per_epoch: int,
        epochs: int | None = None,
        distribution: Distribution = "uniform",
        pattern: str | Pattern = UNSTRUCTURED,
        layers: Chosen | None = None,
        seed: int = 0,
        manual_phases: bool = False,
        initial: Literal["random", "magnitude"] | None = None,
        process_group: ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        check_numbers(sparsity, steps_per_epoch, epochs)
        if initial not in (None, "random", "magnitude"):
            raise UserError(f"initial: {choose('value', str(initial), ('random', 'magnitude'))}")
        names = chosen_names(model, layers)
        self.model = model
        self.optimizer = optimizer
        self.layers = checked_layers(model, optimizer, names)
        warn_of_dense(model, names, asked=layers)
        self.plan = plan_of(method, self.layers, epochs, seed, options)
        self.steps_per_epoch = int(steps_per_epoch)
        self.seed = seed
        sparsity, spread = spread_of(self.plan, self.layers, sparsity, distribution, layers)
        require_sparse_end(method, self.plan, sparsity)
        require_changes(self.plan, self.steps_per_epoch)
        self.targets = Targets(self.layers, sparsity, spread, self.plan, pattern_of(pattern))
        own = tensors(model)
        self.weights = MaskedWeights(
            {name: own[name] for name in names},  # type: ignore[misc]
            optimizer,
            self.targets.pattern,
        )
        claim(self, self.weights.params)
        # an option that nobody would follow
        self._scheduled = "step_lr" not in options or options["step_lr"] == "recipe"
        self._wiring = Wiring(model, names)
        self._caller = SoleCaller(optimizer)
        self._elementwise = is_elementwise(optimizer)
        self._start_by = initial
        self._fresh: Fresh | None = None
        self._shapes = {layer.name: layer.shape for layer in self.layers}
        self.coverage = Coverage(self._shapes)
        self._ledger = Ledger(self.layers)
        self._group = process_group
        self.steps = 0
        self._manual = manual_phases
        self._index = 0
        self._uncounted = 0  # steps since the ledger was last told
        self._before_growth: dict[str, Tensor] = {}
        self._round = Round(self)
        self._changes: list[Change] = []
        self._transformed: Transformed | None = None
        self._start()

    @property
    def segment(self) -> Segment:
        """The phase of the next step, or the last phase once the plan is done."""
        return self.plan.segments[self._index]

    @property
    def done(self) -> bool:
        """Whether all epochs of the plan have been trained."""
        return self.steps >= self.plan.epochs * self.steps_per_epoch

    @property
    def phase_ended(self) -> bool:
        """Whether the current phase has ended and the next phase has not been entered."""
        return self.steps >= self.segment.stop * self.steps_per_epoch and not self._is_last

    @property
    def masks(self) -> dict[str, Tensor]:
        """Boolean masks of the layers that are sparse now, by layer name."""
        return self.weights.masks

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take an optimiser step, keep masked weights at zero, and follow the plan.

        Args:
            closure: computes the loss and its gradients again, as for torch's optimisers.

        Returns:
            the value that the closure returned, or None.

        Raises:
            UserError: if the model's parameters were replaced, other code called the optimiser, or
                random first masks would destroy trained weights.
        """
        self._begin()
        update, step, length = self._due()
        if update is not None and update.replaces_step:
            loss = None if closure is None else closure()
        else:
            loss = self._optimise(closure, update is not None and update.dense_gradient)
            if self._transformed is None:
                self.weights.hold()
        if self._transformed is not None:
            self._transform(self._transformed)
        elif update is None:
            self._uncounted += 1
        else:
            self._change(update, step, length)
        self._end()
        return loss

    @property
    def moves_alone(self) -> bool:
        """Whether the next step is a `move` only: the step changes no mask."""
        return self._transformed is None and self._elementwise and self._due()[0] is None

    def move(self) -> None:
        """Move weights and keep masked ones at zero, uncounted: what a graph records."""
        self._optimise(None, False)
        self.weights.hold()

    def taken(self) -> None:
        """Count a step that consisted of one `move`, replayed by a CUDA graph."""
        self._begin()
        self._uncounted += 1
        self._end()

    def _due(self) -> tuple[Update | None, int, int]:
        """Return the next step's update or None, the step in its phase, and the phase's steps."""
        step = self.steps - self.segment.start * self.steps_per_epoch
        length = self.segment.phase.epochs * self.steps_per_epoch
        update = self.segment.phase.update
        return update if update is not None and update.due(step, length) else None, step, length

    def _end(self) -> None:
        self.steps += 1
        if self.phase_ended and not self._manual:
            self.next_phase()

    def _begin(self) -> None:
        """Check that a step may be taken; the first step also settles the first masks."""
        if self.phase_ended:
            raise RuntimeError("the phase has ended: call next_phase() before the next step()")
        self._wiring.require_same()
        self._caller.require_sole()
        if self._fresh is not None:
            self._fresh.settle()
            self._fresh = None
        if not self._scheduled:
            raise UserError(
                "step_lr: nothing sets the learning rate: take scheduler = "
                "sparsifier.lr_scheduler(...) and call its step(), or leave the option out"
            )

    def _optimise(self, closure: Callable[[], Any] | None, keep_gradients: bool) -> Any:
        """Take the optimiser's step; hide gradients at masked positions where they matter."""
        dense: dict[str, Tensor] = {}

        def computed() -> Any:
            loss = None if closure is None else closure()
            if self._transformed is not None:
                self._transformed.pull_back()
            elif not self._elementwise:
                dense.update(self.weights.hide_gradients(keep_gradients))
            return loss

        with self._caller.calls():
            if closure is None:
                computed()
                loss = self.optimizer.step()
            else:
                loss = self.optimizer.step(computed)
        for name, gradient in dense.items():
            self.weights.params[name].grad = gradient
        return loss

    def _transform(self, transformed: Transformed) -> None:
        """Compute the weights of the next step, and count this step at the density before."""
        self._uncounted += 1
        self._count_steps()
        transformed.apply()
        self.coverage.update(self.weights.masks)
        if (self.steps + 1) % self.steps_per_epoch == 0:
            self.record("update", tuple(self.weights.masks))

    def _change(self, update: Update, step: int, length: int) -> None:
        """Let an update change the masks, and count this step at the density before."""
        self._count_steps()
        if update.dense_gradient:
            self._ledger.add_dense_gradient(self.weights.active())
        else:
            self._ledger.add_steps(self.weights.active(), 1)
        update.change(Moves(self), step, length)

    def next_phase(self) -> None:
        """Leave the phase that has ended and enter the next phase.

        Raises:
            RuntimeError: if the phase has not ended.
        """
        if not self.phase_ended:
            raise RuntimeError("the phase has not ended: train on before calling next_phase()")
        self._leave()
        following = self.plan.segments[self._index + 1]
        if self.segment.branch is not None:
            self._round.results.append(self._hand_back())
            if following.part != self.segment.part:
                self._round.merge()
        self._enter(self._index + 1)

    def changes(self) -> list[Change]:
        """Return the mask changes since the last call, in order."""
        self._count_steps()
        drained, self._changes = self._changes, []
        return drained

    @property
    def ledger(self) -> Ledger:
        """The run's cost so far; in a P-GaP branch, the cost up to the round plus this branch's."""
        self._count_steps()
        return self._ledger

    def densities(self) -> dict[str, float]:
        """Return the current density of every prunable layer."""
        active = self.weights.active()
        return {layer.name: active[layer.name] / layer.numel for layer in self.layers}

    def jump_to_branch(self, branch: int) -> None:
        """Go from the start of a parallel round to the start of branch `branch`.

        Raises:
            RuntimeError: if the run is not at the start of a parallel round.
        """
        self._require_round_start()
        self._round.return_to_start()
        index = self._index + branch
        self.steps = self.plan.segments[index].start * self.steps_per_epoch
        self._enter(index)

    def finish_branch(self) -> BranchResult:
        """Prune the layers that the finished branch grew, and return the branch's result."""
        self._leave()
        return self._hand_back()

    def restore(self, masks: Mapping[str, Tensor], ledger: LedgerState, coverage: Any) -> None:
        """Restore earlier packed masks, costs and coverage; weights stay as they are."""
        self.weights.set_masks(unpacked(masks, self._shapes))
        self.coverage.load_state_dict(coverage)
        self._ledger.load_state_dict(ledger)
        self._uncounted = 0

    def finish_round(self, results: Sequence[BranchResult]) -> None:
        """Go from the start of a parallel round to its end, with the results of all branches.

        Raises:
            RuntimeError: if the run is not at the start of a parallel round, or a result is absent.
        """
        self._require_round_start()
        if len(results) != self.segment.branches:
            raise RuntimeError("a round ends with one result of each of its branches")
        self._round.results = list(results)
        self._index += self.segment.branches - 1
        self.steps = self.segment.stop * self.steps_per_epoch
        self._round.merge()
        self._enter(self._index + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state except the model's and the optimiser's; masks are packed."""
        return {
            "of": fingerprint(self.plan, self.targets),
            "counted_by": [self.steps_per_epoch, self.seed],
            "index": self._index,
            "steps": self.steps,
            "masks": packed(self.weights.masks),
            "before_growth": packed(self._before_growth),
            **self._round.state_dict(),
            "coverage": self.coverage.state_dict(),
            "ledger": self.ledger.state_dict(),
            **({} if self._transformed is None else {"made": self._transformed.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned; load the model and the optimiser separately.

        Raises:
            UserError: if `state` is no such state, or has other layers, another plan or sparsity.
        """
        own = fingerprint(self.plan, self.targets), (self.steps_per_epoch, self.seed)
        require_own_state(state, self._shapes, *own)
        self._index = state["index"]
        self.steps = state["steps"]
        self._uncounted = 0
        self._changes = []
        if self._fresh is not None and self.steps > 0:  # at 0 the weights are masked as they were
            self._fresh.undo()
        self.weights.set_masks(unpacked(state["masks"], self._shapes))
        if self._fresh is not None:
            self._fresh = None
            self.weights.zero_strays()
        self._before_growth = unpacked(state["before_growth"], self._shapes)
        self._round.load_state_dict(state)
        self.coverage.load_state_dict(state["coverage"])
        self._ledger.load_state_dict(state["ledger"])
        if self._transformed is not None:
            self._transformed.load_state_dict(state["made"])

    @property
    def _is_last(self) -> bool:
        return self._index == len(self.plan.segments) - 1

    def _start(self) -> None:
        params, masked = self.weights.params, self.plan.initial == "random"
        if masked and self._start_by is None:
            self._fresh = Fresh(self.weights.tensors(), doubt(self.optimizer, params))
        if masked and self._start_by == "magnitude":
            self.prune(tuple(params))
        elif masked:
            keep = self.targets.initial()
            masks = {
                name: self.weights.pattern.random(shape, keep[name], self.random("mask", name))
                for name, shape in self._shapes.items()
            }
            self.weights.mask_by(masks)
            self.record("initial", tuple(masks))
        elif sparse := tuple(n for n in params if n not in self.segment.phase.grow):
            self.prune(sparse)
        self._enter(0)
        if self.plan.transform is not None:
            self._transformed = Transformed(self.plan.transform, self.weights, self.targets.counts)
            self._transformed.apply()
        if self._fresh is not None:
            self._fresh.note()

    def _enter(self, index: int) -> None:
        self._count_steps()
        self._index = index
        segment = self.segment
        if segment.branch == 0:
            self._round.keep_start()
        elif segment.branch is not None:
            self._round.return_to_start()
        if segment.phase.restart and self.steps > 0:
            self.optimizer.state.clear()
        self._before_growth = self.weights.grow(segment.phase.grow)
        self.coverage.update(self.weights.masks)
        if self._before_growth:
            self.record("grow", tuple(self._before_growth))

    def _leave(self) -> None:
        phase = self.segment.phase
        if phase.grow and phase.update is None:
            self.prune(tuple(name for name in self.weights.params if name in phase.grow))

    def prune(self, names: tuple[str, ...], progress: float = 1.0) -> None:
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
        self.record("prune", names, error, overlap or None)

    def _hand_back(self) -> BranchResult:
        self._count_steps()
        return self._round.hand_back(self.segment.phase.grow)

    def _require_round_start(self) -> None:
        if self.segment.branch != 0 or self.steps != self.segment.start * self.steps_per_epoch:
            raise RuntimeError("this is not the start of a parallel round")

    def random(self, *path: str | int) -> torch.Generator:
        """Return a generator at the start of the run's random stream `path`."""
        return torch.Generator().manual_seed(stream_seed(self.seed, *path))

    def _count_steps(self) -> None:
        self._ledger.add_steps(self.weights.active(), self._uncounted)
        self._uncounted = 0

    def record(
        self,
        event: Event,
        layers: tuple[str, ...],
        error: float | None = None,
        overlap: dict[str, float] | None = None,
    ) -> None:
        """Record a change of the masks, and check that masks are equal on all ranks."""
        check_equal(self.weights.masks, self._group)
        self._changes.append(Change(event, self.steps, layers, error, overlap, self.densities()))

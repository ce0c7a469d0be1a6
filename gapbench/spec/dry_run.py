"""Forecasts of trials: budgets, costs and densities before a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gapbench.plan.phases import Parallel, Plan
from gapbench.spec.grid import Entry
from gapbench.spec.models import cost_of_plan, counts_of_trial, layers_of_trial
from gapbench.spec.trials import Trial

if TYPE_CHECKING:
    from gapbench.sparsity.counts import Counts

AFTER_THE_RUN = "FLOPs known after the run, which decides each layer's density"


@dataclass(frozen=True)
class Forecast:
    """A trial's plan in numbers. A cost is None if it is known only after the run.

    Attributes:
        epochs: machine-epochs, the sum over all workers.
        times: machine-epochs over the task's own epochs.
        wall_epochs: epochs of wall-clock time, with branches in parallel.
        train_flops_ratio: training cost over the cost of dense training for the recipe's epochs.
        inference_flops_ratio: multiply-accumulates over the dense model's multiply-accumulates.
        prunable_density: kept weights over all weights, in the pruned layers.
        model_density: kept parameters over all parameters, in the whole model.
        sparsity: sparsity of the prunable weights; for a narrow dense network, the sparsity of the
            sparse network of its size.
        coverage: share of prunable weights that will have been active at least once; None if the
            share is only measured, because masks move or magnitudes decide them.
    """

    key: str
    label: str
    task: str
    method: str
    distribution: str
    pattern: str
    sparsity: float
    partitions: int | None
    strategy: str | None
    seed: int
    epochs: int
    times: float
    wall_epochs: int
    train_flops_ratio: float | None
    inference_flops_ratio: float | None
    peak_density: float | None
    mean_density: float | None
    prunable_density: float
    model_density: float
    coverage: float | None
    prunable_parameters: int
    parameters: int
    layers: int
    first_layer: str
    options: dict[str, Any]
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return dict(vars(self))


def dry_run(entries: Sequence[Entry]) -> list[Forecast]:
    """Return the forecast of every trial; allocate no tensors and read no data.

    Raises:
        UserError: if a method's options do not fit the model or the epochs.
    """
    return [_forecast(entry) for entry in entries]


def _forecast(entry: Entry) -> Forecast:
    from gapbench.sparsity.cost import inference_ratio
    from gapbench.sparsity.counts import zeros_of

    trial, proxy = entry.trial, entry.trial.proxy
    plan = trial.plan
    place = (trial.first_layer, trial.distribution, trial.sparsity, trial.pattern)
    counts = counts_of_trial(proxy, *place)
    cost = cost_of_plan(proxy, plan, *place, trial.recipe.batch_size)
    numel = {layer.name: layer.numel for layer in layers_of_trial(proxy, trial.first_layer)}
    prunable, parameters = sum(numel.values()), proxy.parameters
    relative = trial.relative_cost
    total = prunable - zeros_of(prunable, 1 - trial.sparsity)
    if counts is not None:
        total = sum(counts().values())
    return Forecast(
        key=trial.key,
        label=entry.label,
        task=trial.task,
        method=trial.method,
        distribution=trial.distribution,
        pattern=trial.pattern,
        sparsity=trial.column,
        partitions=trial.options.get("partitions"),
        strategy=_strategy(trial, plan),
        seed=trial.seed,
        epochs=plan.epochs,
        times=plan.epochs / trial.recipe.epochs,
        wall_epochs=plan.wall_epochs,
        train_flops_ratio=(
            None if cost is None else relative * cost.dense_epochs / trial.recipe.epochs
        ),
        inference_flops_ratio=(
            relative * inference_ratio(proxy.cost, counts.exact_densities())
            if counts is not None and plan.budget == "layers"
            else None
        ),
        peak_density=None if cost is None else cost.peak_density,
        mean_density=None if cost is None else cost.mean_density,
        prunable_density=total / prunable,
        model_density=(parameters - prunable + total) / trial.whole.parameters,
        coverage=_coverage(trial, plan, counts),
        prunable_parameters=prunable,
        parameters=parameters,
        layers=len(numel),
        first_layer=trial.first_layer,
        options=trial.options,
        note=None if cost is not None else AFTER_THE_RUN,
    )


def _coverage(trial: Trial, plan: Plan, counts: Counts | None) -> float | None:
    from gapbench.sparsity.exploration import planned_coverage

    least = dict.fromkeys((layer.name for layer in trial.layers), 0.0)
    densities = least if counts is None else counts.exact_densities()
    curve = planned_coverage(plan, trial.layers, densities)
    if curve is None or (counts is None and curve[-1] < 1):
        return None
    return curve[-1]


def _strategy(trial: Trial, plan: Plan) -> str | None:
    if any(isinstance(part, Parallel) for part in plan.parts):
        return "parallel"
    strategy = trial.options.get("strategy")
    return None if strategy is None else str(strategy)

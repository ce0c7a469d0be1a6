"""What is known of trials before they are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapbench.plan.phases import Parallel, Plan
from gapbench.spec.grid import Entry
from gapbench.spec.models import cost_of_plan, densities_of_trial, layers_of_trial
from gapbench.spec.trials import Trial

AFTER_THE_RUN = "FLOPs known after the run: global magnitudes decide each layer's density"


@dataclass(frozen=True)
class Forecast:
    """A trial's plan in numbers. Cost is None where it is known only after the run.

    Attributes:
        epochs: machine-epochs, over all workers.
        wall_epochs: epochs on the longest path.
        train_flops_ratio: training cost over that of dense training for the recipe's epochs.
        inference_flops_ratio: multiply-accumulates over those of the dense model.
        prunable_density: kept over all weights of the layers that are pruned.
        model_density: kept over all parameters, of the whole model.
        coverage: prunable weights that will have been active at least once, over all of them; None
            where masks move, or magnitudes decide them: there it is measured.
    """

    key: str
    label: str
    task: str
    method: str
    distribution: str
    sparsity: float
    partitions: int | None
    strategy: str | None
    seed: int
    epochs: int
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
    """Return the forecast of every trial; no tensor is allocated and no data are read.

    Raises:
        UserError: if a method's options do not fit the model or the epochs.
    """
    return [_forecast(entry) for entry in entries]


def _forecast(entry: Entry) -> Forecast:
    from gapbench.sparsity.cost import inference_ratio

    trial, proxy = entry.trial, entry.trial.proxy
    plan = trial.plan
    place = (trial.first_layer, trial.distribution, trial.sparsity)
    targets = densities_of_trial(proxy, *place)
    cost = cost_of_plan(proxy, plan, *place, trial.recipe.batch_size)
    numel = {layer.name: layer.numel for layer in layers_of_trial(proxy, trial.first_layer)}
    kept = _kept(numel, targets, trial.sparsity)
    prunable, parameters = sum(numel.values()), proxy.parameters
    inference = None
    if targets is not None:
        exact = {name: kept[name] / numel[name] for name in numel}
        inference = inference_ratio(proxy.cost, exact)
    total = sum(kept.values())
    return Forecast(
        key=trial.key,
        label=entry.label,
        task=trial.task,
        method=trial.method,
        distribution=trial.distribution,
        sparsity=trial.sparsity,
        partitions=trial.options.get("partitions"),
        strategy=_strategy(trial, plan),
        seed=trial.seed,
        epochs=plan.epochs,
        wall_epochs=plan.wall_epochs,
        train_flops_ratio=None if cost is None else cost.dense_epochs / trial.recipe.epochs,
        inference_flops_ratio=inference,
        peak_density=None if cost is None else cost.peak_density,
        mean_density=None if cost is None else cost.mean_density,
        prunable_density=total / prunable,
        model_density=(parameters - prunable + total) / parameters,
        coverage=_coverage(trial, plan, targets),
        prunable_parameters=prunable,
        parameters=parameters,
        layers=len(numel),
        first_layer=trial.first_layer,
        options=trial.options,
        note=None if cost is not None else AFTER_THE_RUN,
    )


def _coverage(trial: Trial, plan: Plan, targets: Mapping[str, float] | None) -> float | None:
    from gapbench.sparsity.exploration import planned_coverage

    least = dict.fromkeys((layer.name for layer in trial.layers), 0.0)
    curve = planned_coverage(plan, trial.layers, least if targets is None else targets)
    if curve is None or (targets is None and curve[-1] < 1):
        return None
    return curve[-1]


def _kept(
    numel: Mapping[str, int], targets: Mapping[str, float] | None, sparsity: float
) -> dict[str, int]:
    """Return the weights that each layer keeps; of all together where magnitudes decide."""
    from gapbench.sparsity.masks import zeros_of

    if targets is None:
        numel, targets = {"all": sum(numel.values())}, {"all": 1 - sparsity}
    return {name: count - zeros_of(count, targets[name]) for name, count in numel.items()}


def _strategy(trial: Trial, plan: Plan) -> str | None:
    if any(isinstance(part, Parallel) for part in plan.parts):
        return "parallel"
    strategy = trial.options.get("strategy")
    return None if strategy is None else str(strategy)

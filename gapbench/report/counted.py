"""Claims of the slides that are counted from plans at the paper's scale, without training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gapbench.analysis.cells import COSTS, Cell
from gapbench.analysis.evaluation import Evaluation
from gapbench.analysis.records import NOTHING, text_of
from gapbench.engine.exchange import entropy
from gapbench.errors import NothingFound
from gapbench.methods.method import plan
from gapbench.plan.phases import Parallel, Plan
from gapbench.report.grids import Grid, Text
from gapbench.sparsity.exploration import NEARLY_ALL, planned_coverage
from gapbench.spec.ablation import read
from gapbench.spec.dry_run import dry_run
from gapbench.spec.grid import Entry, expand
from gapbench.spec.trials import Trial

COUNTED = "paper"  # the scale
SPARSITY = "sparsity=0.9"
SEEDS = 20
FLOAT = 4  # bytes
EXPLORED = ("exploration/coverage", "exploration/epochs", "exploration/iou")

MAIN, STRATEGY = Path("ablations/main.yaml"), Path("ablations/strategy.yaml")


def counted_grid() -> Grid:
    """Return a grid with one line per claim: the counts from the plans of scale paper.

    Raises:
        UserError: if the ablations of this folder lack the scale or the rows.
    """
    own = ("c_gap", "p_gap", "rigl")
    found = _trials(MAIN, own, "distribution=uniform", "pattern=unstructured")
    trials = {trial.method: trial for trial in reversed(found)}
    _require(trials, own)
    lines = [*_lengths(trials), *_exploration(), *_machines(trials["p_gap"])]
    return Grid(
        title="Claims that are counted, not trained",
        head=("question", "count", "command"),
        body=tuple(tuple(Text(words) for words in line) for line in lines),
        keys=1,
        notes=(
            f"The counts come from the plans of scale paper, and from {SEEDS} seeds for random "
            "growth. An explored weight was active at some time.",
        ),
    )


def explored_grid(evaluations: Sequence[Evaluation], scale: str) -> Grid:
    """Return a grid of mask movement in completed trials, one line per row and sparsity."""
    body = [
        (
            Text(f"{row.name} ({results.ablation}, {results.task})"),
            Text(text_of(column)),
            *(Text(_told(cell, name)) for name in EXPLORED),
            Text(f"{(1 - column) / (1 + column):.3f}" if isinstance(column, float) else NOTHING),
        )
        for evaluation in evaluations
        for results in evaluation.results
        for row, column, cell in results.cells()
        if "exploration/iou" in cell.costs
    ]
    heads = ("row", "sparsity", *(COSTS[name] for name in EXPLORED), "IoU of random masks")
    return Grid(f"Mask movement, measured at scale {scale}", heads, tuple(body), keys=2)


def _told(cell: Cell, name: str) -> str:
    return f"{cell.costs[name]:.3g}" if name in cell.costs else NOTHING


def _trials(file: Path, methods: Sequence[str], *only: str) -> list[Trial]:
    """Return the trials with one seed of the rows of some methods; other rows are not resolved."""
    ablation = read(file)
    rows = tuple(placed for placed in ablation.rows if set(placed.row.method) <= set(methods))
    entries = expand(replace(ablation, rows=rows), COUNTED, only=(SPARSITY, *only), seeds=(0,))
    return [entry.trial for entry in entries]


def _require(there: Collection[object], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in there:
            raise NothingFound(f"{MAIN} or {STRATEGY}: no row of {name} at scale {COUNTED}")


def _lengths(trials: Mapping[str, Trial]) -> Iterator[tuple[str, str, str]]:
    cyclic, parallel = trials["c_gap"], trials["p_gap"]
    command = f"`gapbench run {MAIN} --scale paper -n`"
    yield (
        "How long is grow-and-prune?",
        f"C-GaP {cyclic.plan.epochs} epochs; P-GaP {parallel.plan.epochs} machine-epochs, "
        f"{parallel.plan.wall_epochs} wall-clock epochs",
        command,
    )
    yield (
        "Does a step of C-GaP cost more than a step of RigL at equal sparsity?",
        f"mean density in training: C-GaP {_density(cyclic)}, RigL {_density(trials['rigl'])}",
        command,
    )


def _density(trial: Trial) -> str:
    (forecast,) = dry_run([Entry(trial, "", "")])
    known = forecast.mean_density
    return "not known before the run" if known is None else f"{known:.3f}"


def _exploration() -> Iterator[tuple[str, str, str]]:
    found = {trial.options["strategy"]: trial for trial in _trials(STRATEGY, ("c_gap",))}
    _require(found, ("cyclic", "random"))
    cyclic = _steps(found["cyclic"], found["cyclic"].plan)
    trial = found["random"]
    random = [
        _steps(trial, plan(trial.method, trial.layers, trial.plan.epochs, seed=s, **trial.options))
        for s in range(SEEDS)
    ]
    mean = statistics.mean(random)
    yield (
        "Does cyclic growth explore all weights, and three times faster than random growth?",
        f"cyclic growth explores {100 * NEARLY_ALL:g} % of the weights in {cyclic:g} steps; random "
        f"growth takes {mean:.1f} steps on average ({min(random):g} to {max(random):g}), "
        f"{mean / cyclic:.1f} times as many",
        f"`gapbench run {STRATEGY} --scale paper -n`",
    )


def _steps(trial: Trial, way: Plan) -> float:
    """Return the steps after which nearly all weights were active; infinity if never.

    The positions of the zeros are not known before the run, so every layer has the mean density.
    """
    sparse = {layer.name: 1 - trial.sparsity for layer in trial.layers}
    curve = planned_coverage(way, trial.layers, sparse) or []
    reached = (number for number, share in enumerate(curve, 1) if share >= NEARLY_ALL)
    return float(next(reached, math.inf))


def _machines(trial: Trial) -> Iterator[tuple[str, str, str]]:
    """Yield the bytes that P-GaP's workers send, and the batch that data parallelism would need."""
    (first, *_) = (part for part in trial.plan.parts if isinstance(part, Parallel))
    workers, epochs = len(first.branches), first.branches[0].epochs
    parameters = trial.proxy.parameters
    prunable = sum(layer.numel for layer in trial.layers)
    density = 1 - trial.sparsity
    kept = parameters - prunable + density * prunable
    sparse = FLOAT * kept + prunable * entropy(density) / 8
    examples = trial.proxy.task.epoch_examples(trial.recipe.batch_size)
    updates = epochs * examples // trial.recipe.batch_size
    sent = (workers + 1) * sparse  # the model to every worker, and each partition back once
    reduced = 2 * (workers - 1) * FLOAT * parameters * updates
    yield (
        "Does P-GaP need little communication?",
        f"a round of {workers} workers and {epochs} epochs sends {sent / 1e6:.0f} MB at the "
        "entropy of sparse weights; dense data parallelism by ring all-reduce sends "
        f"{reduced / 1e12:.1f} TB, {reduced / sent:,.0f} times as much",
        "`python -m benchmarks.exchange_bytes` compares files with the entropy",
    )
    batch = trial.recipe.batch_size
    yield (
        "Does P-GaP do without large batches?",
        f"{workers} machines train {trial.plan.epochs} epochs in the time of "
        f"{trial.plan.wall_epochs} at batch size {batch:,}; data parallelism on {workers} machines "
        f"in the same time, with as many images per machine, needs batch size {workers * batch:,}",
        f"`gapbench run {MAIN} --scale paper -n`",
    )

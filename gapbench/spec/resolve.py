"""Resolution of a grid point into trials: defaults, checks, and the budget in epochs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from gapbench.errors import UserError, choose
from gapbench.methods import method
from gapbench.plan.phases import UNSTRUCTURED, Plan
from gapbench.sparsity.distributions import EMERGENT, check_reachable, distributions
from gapbench.spec.budget import nearest_epochs
from gapbench.spec.loading import Document, Keys
from gapbench.spec.models import (
    Proxy,
    cost_of_plan,
    counts_of_trial,
    layers_of_trial,
    proxy,
    task_options_model,
)
from gapbench.spec.narrow import narrowed, relative_cost
from gapbench.spec.schema import epochs_of, explain
from gapbench.spec.trials import Trial
from gapbench.tasks.task import MOST_EPOCHS, Recipe, tasks

MOST_OF_OPTION = 1_000_000  # a count of steps or epochs beyond would take a dry run for ever


@dataclass(frozen=True)
class Given:
    """The values that a file gives for one setting.

    Attributes:
        values: the values of the setting's axis.
        group: group of the setting; settings of one group move together through their values.
    """

    values: tuple[Any, ...]
    document: Document
    keys: Keys
    group: object = None

    @property
    def value(self) -> Any:
        """The value, once one value is chosen."""
        return self.values[0]

    def problem(self, key: str, message: str) -> UserError:
        """Return the error about this setting."""
        return self.document.problem(self.keys or (key,), message)


@dataclass(frozen=True)
class Configuration:
    """One point of a row's grid: a single value per setting.

    Attributes:
        document, keys: position of the row, for errors that concern no single setting.
    """

    method: str
    given: Mapping[str, Given]
    document: Document
    keys: Keys

    def value(self, key: str, default: Any = None) -> Any:
        """Return a setting's value."""
        return self.given[key].value if key in self.given else default

    def under(self, outer: str) -> dict[str, Any]:
        """Return the settings with names `outer.x`, by x."""
        inside = (key for key in self.given if key.startswith(f"{outer}."))
        return {key.partition(".")[2]: self.given[key].value for key in inside}

    def fail(self, key: str, message: str) -> NoReturn:
        """Raise the error about a setting, or about the row if no file gives the setting."""
        if key in self.given:
            raise self.given[key].problem(key, message) from None
        raise self.document.problem((*self.keys, key), message) from None

    def refuse(self, error: UserError, outer: str = "") -> NoReturn:
        """Raise the error of a task or a method at the setting with which its message begins."""
        key, colon, message = str(error).partition(": ")
        if colon and outer + key in self.given:
            self.fail(outer + key, message)
        raise self.document.problem(self.keys, str(error)) from None


def resolve(point: Configuration, seeds: Sequence[int] | None) -> Iterator[Trial]:
    """Yield the trials of one point of a grid, one a seed.

    Args:
        point: the configuration from the files.
        seeds: seeds that replace the files' seeds.

    Raises:
        NotInstalled: if the task needs a package that is not installed.
        UserError: naming file, line, key and the valid choices.
    """
    task_name = point.value("task")
    if task_name is None:
        point.fail("task", f"is missing: valid: {', '.join(tasks)}")
    if task_name not in tasks:
        point.fail("task", choose("task", task_name, tasks))
    tasks[task_name].require()
    task_options = _model(point, task_options_model(task_name), "task_options")
    try:
        model = proxy(task_name, task_options.model_dump())
    except UserError as error:
        point.refuse(error, "task_options.")
    recipe = _recipe(point, model)
    if model.task.steps_per_epoch(recipe.batch_size) == 0:
        examples = f"the {model.task.train_examples} training examples do not fill one batch"
        point.fail("recipe.batch_size", f"{recipe.batch_size} is too large: {examples}")
    shared = {
        "task": task_name,
        "task_version": model.task.version,
        "task_options": task_options.model_dump(),
        "recipe": recipe,
        "method": point.method,
        "options": _options(point, model),
        **_sparsity(point, model),
    }
    if method.methods[point.method].narrow:
        if "pattern" in point.given:
            point.fail("pattern", f"method {point.method} prunes nothing: remove it")
        try:
            shared = narrowed(shared)
        except UserError as error:
            point.refuse(error)
        model = proxy(task_name, shared["task_options"])
    chosen = seeds if seeds is not None else point.value("seeds", (0,))
    epochs = _epochs(point, model, shared, chosen[0])
    budget = str(point.value("epochs", epochs))
    for seed in chosen:
        plan = _planned(point, model, shared, epochs, seed)
        if seed == chosen[0]:
            _check_distribution(point, model, shared, plan)
        yield _trial(point, {**shared, "plan": plan, "budget": budget, "seed": seed})


def _trial(point: Configuration, values: dict[str, Any]) -> Trial:
    try:
        return Trial(**values)
    except ValidationError as error:
        first = error.errors()[0]
        point.fail(str(first["loc"][0]), explain(first))


def _model(point: Configuration, model: type[BaseModel], outer: str) -> BaseModel:
    """Return the settings under `outer` as a model."""
    try:
        return model(**point.under(outer))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            point.fail(f"{outer}.{key}", choose("key", key, model.model_fields))
        point.fail(f"{outer}.{key}", explain(first))


def _recipe(point: Configuration, model: Proxy) -> Recipe:
    changed = point.under("recipe")
    default = model.task.recipe
    if not changed:
        return default
    try:
        return Recipe(**{**dict(default), **changed})
    except ValidationError as error:
        first = error.errors()[0]
        point.fail(f"recipe.{first['loc'][0]}", explain(first))


def _options(point: Configuration, model: Proxy) -> dict[str, Any]:
    """Return all options of the method; the task gives the default partition patterns."""
    checked = method.options_model(point.method)
    values = {k: g.value for k, g in point.given.items() if k in checked.model_fields}
    options = _checked(point, checked, values)
    of_task = values.get("partition_rule") == "patterns" and not values.get("patterns")
    if of_task and (count := options.partitions) >= 1:  # fewer are refused with the plan
        own = model.task.partition_patterns(count)
        if own is None:
            known = f"task {model.task.name} has no partition patterns for {count} partitions"
            point.fail("partition_rule", f"{known}: give patterns, or another rule")
        options = _checked(point, checked, {**values, "patterns": own})
    found = {key: getattr(options, key) for key in checked.model_fields}
    for key, value in found.items():
        if isinstance(value, (int, float)) and abs(value) > MOST_OF_OPTION:
            point.fail(key, f"{value!r} is not possible: give at most {MOST_OF_OPTION:,}")
    return found


def _checked(point: Configuration, model: type[BaseModel], values: dict[str, Any]) -> Any:
    """Return a method's options as its model."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        point.fail(str(first["loc"][0]), explain(first))


def _sparsity(point: Configuration, model: Proxy) -> dict[str, Any]:
    """Return sparsity and distribution; dense training has sparsity 0 and counts every layer."""
    if point.method == "dense":
        for key in ("sparsity", "distribution", "first_layer", "pattern"):
            if key in point.given and point.given[key].keys[:1] == ("trials",):
                point.fail(key, "method dense prunes nothing: remove it")
        return {
            "sparsity": 0.0,
            "distribution": "dense",
            "first_layer": "sparse",
            "pattern": UNSTRUCTURED,
        }
    distribution = point.value("distribution", "uniform")
    sparse = [name for name in distributions if name != "dense"]
    if distribution not in sparse:
        point.fail("distribution", choose("distribution", distribution, sparse))
    if point.value("sparsity") is None:
        point.fail("sparsity", "is missing: give a number in [0, 1)")
    by_default = "dense" if distribution == "uniform" else "sparse"
    first_layer = point.value("first_layer", by_default)
    if model.task.first_layer is None:
        if point.value("first_layer") == "dense":
            name = model.task.name
            point.fail(
                "first_layer", f"task {name} has no input layer to keep dense: valid: sparse"
            )
        first_layer = "sparse"
    return {
        "sparsity": point.value("sparsity"),
        "distribution": distribution,
        "first_layer": first_layer,
        "pattern": _pattern(point),
    }


def _pattern(point: Configuration) -> str:
    given = str(point.value("pattern", UNSTRUCTURED))
    if given == UNSTRUCTURED:
        return given
    from gapbench.sparsity.pattern import pattern_of

    try:
        return pattern_of(given).text
    except UserError as error:
        point.refuse(error)


def _epochs(point: Configuration, model: Proxy, shared: Mapping[str, Any], seed: int) -> int:
    """Return the machine-epochs: as given, from the budget `train_flops`, or the task's own."""
    recipe: Recipe = shared["recipe"]
    if "train_flops" not in point.given:
        return _counted(point, recipe.epochs)
    if distributions[shared["distribution"]].by_magnitude:
        point.fail(
            "train_flops",
            f"the cost under {shared['distribution']} is known only after the run: give epochs",
        )
    keys = ("distribution", "first_layer", "sparsity", "pattern", "method")
    words = {key: shared[key] for key in keys}
    words["options"] = json.dumps(shared["options"])
    try:
        return _epochs_for(
            model, point.value("train_flops"), recipe, seed, relative_cost(shared), **words
        )
    except UserError as error:
        point.fail("train_flops", str(error))


def _counted(point: Configuration, own: int) -> int:
    """Return the given epochs, a number or a multiple of the task's own epochs."""
    given = point.value("epochs", own)
    epochs = epochs_of(given, own) if isinstance(given, str) else given
    if not (1 <= epochs <= MOST_EPOCHS and epochs == int(epochs)):
        words = f"{given} of the task's own {own} epochs is {epochs:g}"
        point.fail("epochs", f"{words}: give a multiple with whole epochs up to {MOST_EPOCHS}")
    return int(epochs)


@cache
def _epochs_for(
    model: Proxy,
    train_flops: float,
    recipe: Recipe,
    seed: int,
    relative: float,
    *,
    method: str,
    options: str,
    first_layer: str,
    distribution: str,
    sparsity: float,
    pattern: str,
) -> int:
    def cost_of(epochs: int) -> float | None:
        try:
            plan = _plan(model, first_layer, method, options, epochs, seed)
        except UserError:
            if epochs > 100 * recipe.epochs:
                raise
            return None
        place = (first_layer, distribution, sparsity, pattern)
        cost = cost_of_plan(model, plan, *place, recipe.batch_size)
        return None if cost is None else relative * cost.dense_epochs / recipe.epochs

    return nearest_epochs(train_flops, cost_of)


def _planned(
    point: Configuration, model: Proxy, values: Mapping[str, Any], epochs: int, seed: int
) -> Plan:
    """Return the plan of the method, or raise the method's error about its options."""
    options = json.dumps(values["options"])
    partitions = values["options"].get("partitions", 1)
    layers = layers_of_trial(model, values["first_layer"])
    if not 1 <= partitions <= len(layers):
        given = f"{partitions} is not possible with {len(layers)} prunable layers"
        point.fail("partitions", f"{given}: give 1 to {len(layers)}")
    try:
        return _plan(model, values["first_layer"], point.method, options, epochs, seed)
    except UserError as error:
        point.refuse(error)


def _check_distribution(
    point: Configuration, model: Proxy, values: Mapping[str, Any], plan: Plan
) -> None:
    """Check that a plan can reach the sparsity under the distribution, and ends sparse."""
    try:
        plan.require_sparse_end(values["sparsity"])
    except UserError as error:
        point.fail("method", f"{point.method}: {error}")
    name, layers = values["distribution"], layers_of_trial(model, values["first_layer"])
    if (name == EMERGENT) != (plan.budget == EMERGENT):
        words = "learns the distribution: give" if name != EMERGENT else "does not learn:"
        point.fail("distribution", f"method {point.method} {words} {EMERGENT}")
    magnitude = distributions[name].by_magnitude
    prunes = plan.initial == "dense" or any(segment.phase.grow for segment in plan.segments)
    if magnitude and not prunes:
        others = ", ".join(
            n
            for n in distributions
            if n not in ("dense", EMERGENT) and not distributions[n].by_magnitude
        )
        reason = f"{name} needs a method that prunes by magnitude, {point.method} never does"
        point.fail("distribution", f"{reason}: valid: {others}")
    if values["pattern"] != UNSTRUCTURED:
        _check_pattern(point, model, values, plan)
    if magnitude:
        shapes = {layer.name: layer.shape for layer in layers}
        try:
            together = plan.pruned_together(frozenset(shapes))
            check_reachable(name, shapes, values["sparsity"], together)
        except UserError as error:
            point.refuse(error)


def _check_pattern(
    point: Configuration, model: Proxy, values: Mapping[str, Any], plan: Plan
) -> None:
    """Check that the masks of all layers can have the pattern."""
    from gapbench.sparsity.pattern import pattern_of, require_fit

    place = (values[key] for key in ("first_layer", "distribution", "sparsity", "pattern"))
    try:
        require_fit(pattern_of(values["pattern"]), plan, counts_of_trial(model, *place))
    except UserError as error:
        point.refuse(error)


@cache
def _plan(model: Proxy, first_layer: str, name: str, options: str, epochs: int, seed: int) -> Plan:
    layers = layers_of_trial(model, first_layer)
    return method.plan(name, layers, epochs, seed=seed, **json.loads(options))

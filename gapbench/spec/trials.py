"""Trials: resolved configurations, each identified by a key that is a hash of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
)

from gapbench.base.documents import read_document
from gapbench.base.identity import Neutral, digest, with_neutral, without_neutral
from gapbench.errors import UserError
from gapbench.methods.method import methods
from gapbench.methods.method import plan as make_plan
from gapbench.plan.document import document_of, identity_of, plan_of
from gapbench.plan.phases import UNSTRUCTURED, Layers, Plan
from gapbench.spec.models import Proxy, layers_of_trial, proxy, task_options_model
from gapbench.spec.narrow import relative_cost, whole_of
from gapbench.spec.schema import Sparsity, epochs_of, is_multiple
from gapbench.tasks.task import Recipe, Task, tasks

if TYPE_CHECKING:
    from gapbench.training.setup import Settings

SCHEMA = 2
ENGINE = 1  # raised when the same plan gives other numbers
SPELLING = ("method", "options", "budget")


def _plan(value: object) -> Plan:
    return value if isinstance(value, Plan) else plan_of(value)


class Trial(BaseModel):
    """The complete configuration of one run, and the request from which it was resolved.

    Attributes:
        plan: the method's plan, resolved for the layers of the task's model.
        first_layer: "dense" or "sparse"; a dense input layer is outside the sparsity budget.
        pattern: written form of the pattern of the masks.
        as_small_as: sparsity of the sparse network to whose size this dense network was narrowed.
        engine: version of the engine that executes the plan.
        method, options, budget: the request for the plan, on which the key does not depend.
        budget: the epochs as written in a file, such as "5x" or "160".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    task: str
    task_version: int
    task_options: dict[str, Any]
    recipe: Recipe
    plan: Annotated[InstanceOf[Plan], BeforeValidator(_plan), PlainSerializer(document_of)]
    distribution: str
    first_layer: Literal["dense", "sparse"]
    sparsity: Sparsity
    pattern: Annotated[str, Neutral(UNSTRUCTURED)] = UNSTRUCTURED
    as_small_as: Annotated[Sparsity | None, Neutral(None)] = None
    seed: int = Field(ge=0, lt=2**32)
    engine: int = ENGINE
    method: str
    options: dict[str, Any]
    budget: str = ""

    @cached_property
    def key(self) -> str:
        """The first 16 hex digits of the sha256 of everything on which the results depend."""
        whole = without_neutral(type(self), self.model_dump(mode="json", exclude=set(SPELLING)))
        whole["task_options"] = without_neutral(task_options_model(self.task), self.task_options)
        whole["recipe"] = without_neutral(type(self.recipe), whole["recipe"])
        whole["plan"] = identity_of(self.plan)
        return digest(whole)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Trial:
        """Return a copy; a copy with other values has another key."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied

    @property
    def name(self) -> str:
        """Name of the method in tables, such as "C-GaP", "RigL 5x" or "C-GaP 2:4"."""
        longer = is_multiple(self.budget) and epochs_of(self.budget, 1) != 1
        words = [methods[self.method].label, *([self.budget] if longer else [])]
        return " ".join(words if self.pattern == UNSTRUCTURED else [*words, self.pattern])

    @property
    def label(self) -> str:
        """One line for people, without the details that distinguish trials of one ablation."""
        return self.describe(self.name)

    def describe(self, name: str, *details: str) -> str:
        """Return `name` with distribution, sparsity, details and seed."""
        sparse = [] if self.method == "dense" else [self.distribution, f"{self.column:g}"]
        return " ".join([name, *sparse, *details, f"seed {self.seed}"])

    @property
    def column(self) -> float:
        """The sparsity of the trial's column in tables."""
        return self.sparsity if self.as_small_as is None else self.as_small_as

    @property
    def whole(self) -> Proxy:
        """The full-width network to whose cost and size this trial's cost and size are related."""
        return whole_of(dict(self))

    @property
    def relative_cost(self) -> float:
        """The forward cost of the dense network over the cost of the `whole` network."""
        return relative_cost(dict(self))

    def fields(self) -> dict[str, Any]:
        """Return all settings as a flat mapping: method options by name, others as `recipe.lr`."""
        return {
            "task": self.task,
            "method": self.method,
            "distribution": self.distribution,
            "first_layer": self.first_layer,
            "pattern": self.pattern,
            "sparsity": self.column,
            "epochs": self.plan.epochs,
            "seed": self.seed,
            **self.options,
            **{f"task_options.{key}": value for key, value in self.task_options.items()},
            **{f"recipe.{key}": value for key, value in self.recipe},
        }

    def document(self) -> dict[str, Any]:
        """Return the content of trial.json."""
        whole = without_neutral(type(self), self.model_dump(mode="json"))
        options = task_options_model(self.task)
        whole["task_options"] = without_neutral(options, whole["task_options"])
        return {"key": self.key, "schema": SCHEMA, **whole}

    @classmethod
    def read(cls, path: Path) -> Trial:
        """Read a trial.json.

        Raises:
            UserError: if the file is missing or damaged, or does not match its key.
        """
        try:
            return cls.of_document(read_document(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not a trial: delete the folder and run again") from None

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Trial:
        """Return the trial that a document holds.

        Raises:
            UserError: if an earlier version wrote the document, or it does not match its key.
            ValueError, KeyError, TypeError: if the value is no document of a trial.
        """
        whole = dict(document)
        key, schema = whole.pop("key"), whole.pop("schema")
        if schema != SCHEMA:
            raise UserError(f"has schema {schema}, not {SCHEMA}: `gapbench runs migrate` renews it")
        options = task_options_model(whole["task"])
        known = with_neutral(options, whole["task_options"])
        whole["task_options"] = {n: known[n] for n in options.model_fields if n in known} | known
        recipe: Any = cls.model_fields["recipe"].annotation
        whole["recipe"] = with_neutral(recipe, whole["recipe"])
        try:
            trial = cls.model_validate(with_neutral(cls, whole))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        if key != trial.key:
            raise UserError(f"its key {key} does not match its content")
        return trial

    def make_task(self) -> Task:
        """Return a new instance of the task."""
        return tasks[self.task](**self.task_options)

    @property
    def ranks(self) -> int:
        """Number of processes that share each batch; another number changes the results."""
        return self.recipe.ranks or max(1, self.make_task().resources.gpus)

    def settings(self) -> Settings:
        """Return the settings from which training is built."""
        from gapbench.training.setup import Settings

        return Settings(
            recipe=self.recipe,
            plan=self.plan,
            distribution=self.distribution,
            first_layer=self.first_layer,
            sparsity=self.sparsity,
            pattern=self.pattern,
            seed=self.seed,
            relative_cost=self.relative_cost,
        )

    @property
    def proxy(self) -> Proxy:
        """The task with its model on the meta device."""
        return proxy(self.task, self.task_options)

    @property
    def layers(self) -> Layers:
        """The layers that are pruned."""
        return layers_of_trial(self.proxy, self.first_layer)

    def require_versions(self) -> None:
        """Check that this code has the versions of the engine and the task of the trial.

        Raises:
            UserError: if the engine or the task has another version.
        """
        own = {
            "engine": (self.engine, ENGINE),
            self.task: (self.task_version, tasks[self.task].version),
        }
        for name, (asked, here) in own.items():
            if asked != here:
                raise UserError(
                    f"the trial has version {asked} of {name}, and gapbench has {here}: run "
                    "its ablation again for a new trial"
                )


def planned(epochs: int, **settings: Any) -> Trial:
    """Return the trial of a method with `epochs` machine-epochs, including its plan.

    Args:
        epochs: the whole budget in machine-epochs.
        settings: the fields of a trial, except its plan.

    Raises:
        UserError: if the options do not fit the model or the epochs.
        ValidationError: if a setting is invalid.
    """
    model = proxy(settings["task"], settings["task_options"])
    layers = layers_of_trial(model, settings["first_layer"])
    name, options = settings["method"], settings["options"]
    plan = make_plan(name, layers, epochs, seed=settings["seed"], **options)
    return Trial(**{"budget": str(epochs), **settings}, plan=plan)

"""Trials: one resolved configuration each, known by a key that is a hash of all of it."""

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
    """Everything that the numbers of one run depend on, and how people asked for it.

    Attributes:
        plan: what the method does, resolved for the layers of the task's model.
        first_layer: whether the task's input layer stays dense, and outside of the budget.
        pattern: which masks are allowed, as people write it.
        as_small_as: the sparsity that this dense network has been narrowed for.
        engine: version of what executes the plan.
        method, options, budget: how the plan was asked for; the key does not depend on them.
        budget: the epochs as a file gives them, "5x" or "160".
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
        """The first 16 hex digits of the sha256 of all that the numbers depend on."""
        whole = without_neutral(type(self), self.model_dump(mode="json", exclude=set(SPELLING)))
        whole["task_options"] = without_neutral(task_options_model(self.task), self.task_options)
        whole["recipe"] = without_neutral(type(self.recipe), whole["recipe"])
        whole["plan"] = identity_of(self.plan)
        return digest(whole)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Trial:
        """Return a copy; one with other values has another key."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied

    @property
    def name(self) -> str:
        """What the method is called in tables: "C-GaP", "RigL 5x", "C-GaP 2:4"."""
        longer = is_multiple(self.budget) and epochs_of(self.budget, 1) != 1
        words = [methods[self.method].label, *([self.budget] if longer else [])]
        return " ".join(words if self.pattern == UNSTRUCTURED else [*words, self.pattern])

    @property
    def label(self) -> str:
        """One line for people, without what only tells trials of one ablation apart."""
        return self.describe(self.name)

    def describe(self, name: str, *details: str) -> str:
        """Return `name` with distribution, sparsity, details and seed."""
        sparse = [] if self.method == "dense" else [self.distribution, f"{self.column:g}"]
        return " ".join([name, *sparse, *details, f"seed {self.seed}"])

    @property
    def column(self) -> float:
        """The sparsity that its results stand under."""
        return self.sparsity if self.as_small_as is None else self.as_small_as

    @property
    def whole(self) -> Proxy:
        """The network to whose cost and size those of this trial are related: of full width."""
        return whole_of(dict(self))

    @property
    def relative_cost(self) -> float:
        """The forward cost of the dense network over that of the `whole` one."""
        return relative_cost(dict(self))

    def fields(self) -> dict[str, Any]:
        """Return all settings flat: method options by name, others as `recipe.lr`."""
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
        """Return what trial.json holds."""
        whole = without_neutral(type(self), self.model_dump(mode="json"))
        options = task_options_model(self.task)
        whole["task_options"] = without_neutral(options, whole["task_options"])
        return {"key": self.key, "schema": SCHEMA, **whole}

    @classmethod
    def read(cls, path: Path) -> Trial:
        """Read a trial.json.

        Raises:
            UserError: if it is missing, damaged, or not what its key was made from.
        """
        try:
            return cls.of_document(read_document(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: this is no trial: delete the folder and run again") from None

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Trial:
        """Return the trial that a document holds.

        Raises:
            UserError: if it was written by an earlier version, or is not what its key was made of.
            ValueError, KeyError, TypeError: if it is no document of a trial.
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
            raise UserError(f"its key {key} does not fit its content")
        return trial

    def make_task(self) -> Task:
        """Return a new instance of the task."""
        return tasks[self.task](**self.task_options)

    @property
    def ranks(self) -> int:
        """Processes that share each batch; another number of them gives other numbers."""
        return self.recipe.ranks or max(1, self.make_task().resources.gpus)

    def settings(self) -> Settings:
        """Return what training is built from."""
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
        """Check that this code trains what the trial says.

        Raises:
            UserError: if the engine or the task has another version here.
        """
        own = {
            "engine": (self.engine, ENGINE),
            self.task: (self.task_version, tasks[self.task].version),
        }
        for name, (asked, here) in own.items():
            if asked != here:
                raise UserError(
                    f"the trial is of version {asked} of {name}, which is at {here} here: run its "
                    "ablation again for a trial of today's"
                )


def planned(epochs: int, **settings: Any) -> Trial:
    """Return the trial of a method that has `epochs` machine-epochs, its plan made.

    Args:
        epochs: the whole budget.
        settings: the fields of a trial, but for its plan.

    Raises:
        UserError: if the options do not fit the model or the epochs.
        ValidationError: if a setting is none.
    """
    model = proxy(settings["task"], settings["task_options"])
    layers = layers_of_trial(model, settings["first_layer"])
    name, options = settings["method"], settings["options"]
    plan = make_plan(name, layers, epochs, seed=settings["seed"], **options)
    return Trial(**{"budget": str(epochs), **settings}, plan=plan)

"""Trials: one resolved configuration each, known by a key that is a hash of all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gapbench.documents import read_document
from gapbench.errors import UserError
from gapbench.experiments.models import Proxy, layers_of_trial, proxy
from gapbench.experiments.schema import Sparsity
from gapbench.methods import method
from gapbench.methods.plan import Layers, Plan
from gapbench.tasks.task import MOST_EPOCHS, Recipe, Task, tasks

if TYPE_CHECKING:
    from gapbench.training.setup import Settings

SCHEMA = 1
LATER: dict[str, object] = {"ranks": None, "portable": False}  # fields of a recipe, what they were


class Trial(BaseModel):
    """Everything that the numbers of one run depend on, defaults and versions included.

    Attributes:
        epochs: machine-epochs handed to the method, which may multiply them (RigL).
        first_layer: whether the task's input layer stays dense, and outside of the budget.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    task: str
    task_version: int
    task_options: dict[str, Any]
    recipe: Recipe
    method: str
    method_version: int
    options: dict[str, Any]
    distribution: str
    first_layer: Literal["dense", "sparse"]
    sparsity: Sparsity
    epochs: int = Field(ge=1, le=MOST_EPOCHS)
    seed: int = Field(ge=0, lt=2**32)

    @cached_property
    def key(self) -> str:
        """The first 16 hex digits of the sha256 of the whole configuration."""
        whole = self.configuration()
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Trial:
        """Return a copy; one with other values has another key."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied

    @property
    def name(self) -> str:
        """What the method is called in tables: "C-GaP", "RigL 5x"."""
        multiplier = self.options.get("multiplier", 1)
        label = method.methods[self.method].label
        return label if multiplier == 1 else f"{label} {multiplier}x"

    @property
    def label(self) -> str:
        """One line for people, without what only tells trials of one ablation apart."""
        return self.describe(self.name)

    def describe(self, name: str, *details: str) -> str:
        """Return `name` with distribution, sparsity, details and seed."""
        sparse = [] if self.method == "dense" else [self.distribution, f"{self.sparsity:g}"]
        return " ".join([name, *sparse, *details, f"seed {self.seed}"])

    def fields(self) -> dict[str, Any]:
        """Return all settings flat: method options by name, others as `recipe.lr`."""
        return {
            "task": self.task,
            "method": self.method,
            "distribution": self.distribution,
            "first_layer": self.first_layer,
            "sparsity": self.sparsity,
            "epochs": self.epochs,
            "seed": self.seed,
            **self.options,
            **{f"task_options.{key}": value for key, value in self.task_options.items()},
            **{f"recipe.{key}": value for key, value in self.recipe},
        }

    def document(self) -> dict[str, Any]:
        """Return what trial.json holds."""
        return {"key": self.key, "schema": SCHEMA, **self.configuration()}

    def configuration(self) -> dict[str, Any]:
        """Return all that the numbers depend on, ready for JSON.

        What came later than the first trials is left out where it has the value that they had.
        """
        whole = self.model_dump(mode="json")
        for name, neutral in LATER.items():
            if whole["recipe"][name] is neutral:
                del whole["recipe"][name]
        return whole

    @classmethod
    def read(cls, path: Path) -> Trial:
        """Read a trial.json.

        Raises:
            UserError: if it is missing, damaged, or not what its key was made from.
        """
        try:
            whole = read_document(path)
            key, schema = whole.pop("key"), whole.pop("schema")
            trial = cls.model_validate(whole)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UserError(f"{path}: {where}: {error.errors()[0]['msg']}") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: this is no trial: delete the folder and run again") from None
        if (key, schema) != (trial.key, SCHEMA):
            raise UserError(f"{path}: its key {key} does not fit its content")
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
            method=self.method,
            options=self.options,
            distribution=self.distribution,
            first_layer=self.first_layer,
            sparsity=self.sparsity,
            epochs=self.epochs,
            seed=self.seed,
        )

    @property
    def proxy(self) -> Proxy:
        """The task with its model on the meta device."""
        return proxy(self.task, self.task_options)

    @property
    def layers(self) -> Layers:
        """The layers that are pruned."""
        return layers_of_trial(self.proxy, self.first_layer)

    def plan(self) -> Plan:
        """Return what the method will do.

        Raises:
            UserError: if the options do not fit the model or the epochs.
        """
        return method.plan(self.method, self.layers, self.epochs, seed=self.seed, **self.options)

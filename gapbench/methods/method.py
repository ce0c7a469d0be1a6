"""The registry of methods, and the call of a method. Each method has a file in this package."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    create_model,
)

from gapbench.base.registry import Registry
from gapbench.base.streams import stream
from gapbench.errors import UserError, choose
from gapbench.plan.phases import Layers, Plan, names_of

Build = Callable[..., Plan]


@dataclass(frozen=True)
class Method:
    """A registered method: `build(layers, epochs, rng, **options)` returns its plan.

    Attributes:
        narrow: whether the method trains a dense network of the size of a sparse network.
        small: options with which masks change within dozens of steps; the contract tests of all
            registered methods use these options.
        look: colour and marker of the method's rows in all figures; None: a default look.
    """

    name: str
    label: str
    build: Build
    narrow: bool = False
    small: Mapping[str, Any] = field(default_factory=dict)
    look: tuple[str, str] | None = None

    @property
    def origin(self) -> str:
        """Location of the function, for messages."""
        return f"{self.build.__module__}.{self.build.__name__}"


methods: Registry[Method] = Registry("method", "gapbench.methods")


def method(
    name: str,
    *,
    label: str,
    narrow: bool = False,
    small: Mapping[str, Any] | None = None,
    look: tuple[str, str] | None = None,
) -> Callable[[Build], Build]:
    """Register a function as a method.

    The function takes (layers, epochs, rng), and its options as keyword-only arguments with types
    and defaults. `rng` is the trial's random stream for partitions.
    """

    def add(build: Build) -> Build:
        methods.register(name)(Method(name, label, build, narrow, small or {}, look))
        return build

    return add


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


@functools.cache
def options_model(name: str) -> type[BaseModel]:
    """Return the strict pydantic model of a method's options, from the function's signature."""
    build = methods[name].build
    hints = get_type_hints(build)
    for key, parameter in inspect.signature(build).parameters.items():
        bare = key not in hints or parameter.default is parameter.empty
        if parameter.kind is parameter.KEYWORD_ONLY and bare:
            raise UserError(f"method {name}: option {key} needs a default and an annotation")
    fields: dict[str, Any] = {
        key: (Annotated[hints[key], BeforeValidator(_tuples)], parameter.default)
        for key, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    return create_model(f"{name}_options", __config__=config, **fields)


def plan(name: str, layers: Layers, epochs: int, *, seed: int = 0, **options: Any) -> Plan:
    """Return the plan of method `name` for `epochs` machine-epochs over `layers`.

    Raises:
        UserError: if the method or an option is unknown, or the options do not fit together.
    """
    if epochs < 1:
        raise UserError(f"epochs: {epochs} is not possible: at least 1 is needed")
    model = options_model(name)
    try:
        checked = model(**options)
    except ValidationError as error:
        raise UserError(_first_line(name, model, error)) from None
    values = {key: getattr(checked, key) for key in model.model_fields}
    rng: random.Random = stream(seed, "partition")
    built = methods[name].build(layers, epochs, rng, **values)
    if not isinstance(built, Plan):
        raise UserError(f"method {name}: it returns {type(built).__name__}, not a Plan")
    grown = frozenset[str]().union(*(segment.phase.grow for segment in built.segments))
    if foreign := sorted(grown - names_of(layers)):
        raise UserError(
            f"method {name}: its plan grows {foreign[0]}, which is not one of the layers"
        )
    if built.epochs != epochs:
        raise UserError(
            f"method {name}: its plan has {built.epochs} machine-epochs, its budget is {epochs}"
        )
    return built


def _first_line(name: str, model: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    key = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return choose(f"option of {name}", key, model.model_fields)
    return f"option {key} of {name}: {problem['input']!r}: {problem['msg']}"

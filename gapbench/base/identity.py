"""Identity that outlives growth: hashes of values, from which what came later can stay out.

A field that is added to what a hash covers says in its annotation which value means "as before the
field was there": `ranks: Annotated[int | None, Neutral(None)] = None`. The hash leaves the field
out where it has this value, and a document without the field is read as if it had it. So a new
field changes no earlier hash, whatever its default is, or becomes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel

DIGITS = 16  # hex digits of a hash


@dataclasses.dataclass(frozen=True)
class Neutral:
    """Marks a field that came later. Its value is never changed: hashes of earlier values do."""

    value: Any


@cache
def neutral_values(model: type) -> Mapping[str, Any]:
    """Return the neutral value of each field, of a pydantic model or a dataclass, that has one."""
    if issubclass(model, BaseModel):
        metadata = {name: tuple(field.metadata) for name, field in model.model_fields.items()}
    else:
        hints = get_type_hints(model, include_extras=True)
        metadata = {
            field.name: get_args(hints[field.name])[1:]
            for field in dataclasses.fields(cast(Any, model))
            if get_origin(hints[field.name]) is Annotated
        }
    marks = ((name, mark) for name, marks in metadata.items() for mark in marks)
    return {name: mark.value for name, mark in marks if isinstance(mark, Neutral)}


def without_neutral(model: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a model's fields but for those that are neutral."""
    neutral = {name: _plain(value) for name, value in neutral_values(model).items()}
    return {
        name: value
        for name, value in values.items()
        if name not in neutral or _plain(value) != neutral[name]
    }


def with_neutral(model: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a document, in which a field that came later has its neutral value."""
    return {**neutral_values(model), **values}


def digest(value: Any) -> str:
    """Return 16 hex digits of the sha256 of a JSON value; equal numbers are one, 1 and 1.0.

    Raises:
        ValueError: if it holds NaN or infinity.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

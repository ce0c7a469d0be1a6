"""Stable hashes of values: a field that is added later does not change earlier hashes.

The annotation of an added field names its neutral value, which means "as before the field existed":
`ranks: Annotated[int | None, Neutral(None)] = None`. The hash leaves out a field that has its
neutral value. A document without the field is read as if the field had its neutral value. So a new
field changes no earlier hash, whatever the default of the field is or becomes.
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
    """Mark of a field that was added later.

    The neutral value of a field must never be changed: a change would change all earlier hashes.
    """

    value: Any


@cache
def neutral_values(model: type) -> Mapping[str, Any]:
    """Return the neutral values of a pydantic model's or a dataclass's fields, by field name."""
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
    """Return the values of a model's fields, except the fields that have their neutral value."""
    neutral = {name: _plain(value) for name, value in neutral_values(model).items()}
    return {
        name: value
        for name, value in values.items()
        if name not in neutral or _plain(value) != neutral[name]
    }


def with_neutral(model: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a document; fields that the document lacks get their neutral value."""
    return {**neutral_values(model), **values}


def digest(value: Any) -> str:
    """Return 16 hex digits of the sha256 of a JSON value; 1 and 1.0 give the same digest.

    Raises:
        ValueError: if the value contains NaN or infinity.
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

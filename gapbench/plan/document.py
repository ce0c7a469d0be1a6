"""Plans as documents: a lossless form for files, and a reduced form for a trial's key.

A plan that is read from a file equals the plan that was written, even if its method has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gapbench.base.identity import with_neutral, without_neutral
from gapbench.errors import UserError
from gapbench.plan.phases import Parallel, Phase, Plan
from gapbench.plan.update import updates

Document = dict[str, Any]

NAMES = ("label",)  # fields for people: no number depends on them


def document_of(plan: Plan) -> Document:
    """Return a plan as plain values, ready for JSON."""
    return _of_plan(plan, _whole)


def identity_of(plan: Plan) -> Document:
    """Return the document of a plan without names and neutral values, which change no result."""
    return _of_plan(plan, _counting)


def _of_plan(plan: Plan, values: Callable[[Any], Document]) -> Document:
    parts = [_of_part(part, values) for part in plan.parts]
    transform = {} if plan.transform is None else {"transform": values(plan.transform)}
    return {"initial": plan.initial, "parts": parts, **transform}


def _of_part(part: Phase | Parallel, values: Callable[[Any], Document]) -> Document:
    if isinstance(part, Parallel):
        return {"branches": [_of_part(phase, values) for phase in part.branches]}
    update = None if part.update is None else values(part.update)
    return {**values(part), "grow": sorted(part.grow), "update": update}


def _whole(value: Any) -> Document:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _counting(value: Any) -> Document:
    found = without_neutral(type(value), _whole(value))
    return {name: inner for name, inner in found.items() if name not in NAMES}


def plan_of(document: Any) -> Plan:
    """Return the plan of a document.

    Raises:
        ValueError: if a value is invalid; the one-line message names the value.
    """
    try:
        return _PLANS.validate_python(_filled(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in _place(first["loc"]))
        raise ValueError(f"{where}: {first['msg']}") from None
    except UserError as error:
        raise ValueError(str(error)) from None
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it is not a plan") from None


def _filled(document: Any) -> Any:
    """Return a document with the neutral values of fields that were added later."""
    if "branches" in document:
        return {"branches": [_filled(phase) for phase in document["branches"]]}
    if "parts" in document:
        return {**document, "parts": [_filled(part) for part in document["parts"]]}
    update = document["update"]
    if update is not None:
        update = with_neutral(updates[update["kind"]], update)
    return {**with_neutral(Phase, document), "update": update}


def _place(keys: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield the keys of a value in the document, without the type names that pydantic inserts."""
    return (key for key in keys if isinstance(key, int) or key.islower())


_PLANS: TypeAdapter[Plan] = TypeAdapter(Plan)

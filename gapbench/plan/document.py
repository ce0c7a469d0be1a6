"""Plans as documents: what a file holds of a plan, losslessly, and what a trial's key takes of it.

A plan from a file is the plan that was planned, whatever its method has become since.
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
    """Return what a plan's numbers depend on: its document without names and neutral values."""
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
        ValueError: saying what in it is none, in one line.
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
        raise ValueError("it is no plan") from None


def _filled(document: Any) -> Any:
    """Return a document with the fields that came after it was written."""
    if "branches" in document:
        return {"branches": [_filled(phase) for phase in document["branches"]]}
    if "parts" in document:
        return {**document, "parts": [_filled(part) for part in document["parts"]]}
    update = document["update"]
    if update is not None:
        update = with_neutral(updates[update["kind"]], update)
    return {**with_neutral(Phase, document), "update": update}


def _place(keys: tuple[int | str, ...]) -> Iterator[int | str]:
    """Yield the keys of a place in the document; pydantic adds the names of types to them."""
    return (key for key in keys if isinstance(key, int) or key.islower())


_PLANS: TypeAdapter[Plan] = TypeAdapter(Plan)

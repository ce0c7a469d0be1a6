"""Records: a mapping of settings per trial, and the written form of values for people.

This module imports nothing heavy: commands without a report use it to check report sections.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gapbench.methods.method import methods, options_model
from gapbench.spec.grid import Entry
from gapbench.spec.select import in_epochs

COMPLETED = "completed"
NOTHING = "–"  # a setting that a trial does not have

Record = Mapping[str, Any]


def records_of(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return a record of each trial before its run; all records have the same names."""
    # a selection of trials has the columns of the whole ablation, so that its report still fits
    options = {name: None for known in methods for name in options_model(known).model_fields}
    rows = [
        {"key": entry.trial.key, "state": "planned", **options}
        | {name: plain(value) for name, value in entry.fields().items()}
        for entry in entries
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return [{**dict.fromkeys(names), **row} for row in rows]


def settings_of(trial: Record) -> dict[str, Any]:
    """Return the settings of a trial, without measurements and without the seed."""
    skipped = ("key", "state", "seed")
    return {name: v for name, v in trial.items() if "/" not in name and name not in skipped}


def differing(trials: Sequence[Record]) -> list[str]:
    """Return the settings in which trials differ, or that only some trials have."""
    names = dict.fromkeys(name for settings in trials for name in settings)
    first = trials[0]
    return [n for n in names if any(differ(first.get(n), other.get(n)) for other in trials)]


def plain(value: object) -> object:
    """Return a value in a form for a CSV cell: lists become JSON."""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def is_given(value: object) -> bool:
    """Say whether a value of a record is given."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def is_number(value: object) -> bool:
    """Say whether a value is a number; NaN is one, the mark of a diverged run."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def alternatives(value: object) -> list[object]:
    """Return the values that a setting of a claim or a baseline allows."""
    return value if isinstance(value, list) else [value]


def fits(settings: Record, name: str, wanted: object) -> bool:
    """Say whether a setting equals the wanted value of a claim or a baseline, or one of several."""
    if name not in settings:
        return False
    values = (in_epochs(name, value, settings) for value in alternatives(wanted))
    return text_of(settings[name]) in map(text_of, values)


def text_of(value: object) -> str:
    """Return a setting as people write it: 4.0 is "4", True is "yes"."""
    if not is_given(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differ(one: object, other: object) -> bool:
    """Say whether two settings have different written forms."""
    if type(one) is type(other) and one == other:
        return False
    return text_of(one) != text_of(other)

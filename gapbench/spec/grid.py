"""Expansion of an ablation at a scale into trials: layers of settings, products, seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from gapbench.errors import NothingFound, UserError, choose
from gapbench.methods.method import options_model
from gapbench.spec.ablation import Ablation, PlacedRow
from gapbench.spec.loading import Document, Keys
from gapbench.spec.resolve import Configuration, Given, resolve
from gapbench.spec.schema import (
    AXES,
    RECIPE_KEYS,
    MethodSettings,
    Override,
    Settings,
    validated,
)
from gapbench.spec.select import matches, names_in, require_known_fields
from gapbench.spec.trials import Trial
from gapbench.tasks.task import Recipe

MOST_POINTS = 10_000  # of a row
MOST_TRIALS = 20_000  # of an ablation: a dry run of so many takes seconds

ALTERNATIVES = {"epochs": "train_flops", "train_flops": "epochs"}
OF_SPARSE_TRIALS = ("sparsity", "distribution", "first_layer", "pattern")


@dataclass(frozen=True)
class Entry:
    """A trial of an ablation, with its name and label.

    Attributes:
        trial: the resolved configuration.
        name: label of the trial's row, else the method's name.
        label: one line that distinguishes the trial from the other trials of the ablation.
    """

    trial: Trial
    name: str
    label: str

    def fields(self) -> dict[str, Any]:
        """Return the trial's settings as a flat mapping, with the row's name under "label"."""
        return {"label": self.name, **self.trial.fields()}


def expand(
    ablation: Ablation,
    scale: str,
    *,
    overrides: Document | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
) -> list[Entry]:
    """Return the trials of an ablation at a scale, each once.

    Args:
        ablation: the ablation file with its includes.
        scale: name of a scale of the ablation.
        overrides: settings of `--set`, which override the files.
        only: patterns, all of which a trial must match.
        seeds: seeds that replace the files' seeds.

    Raises:
        UserError: naming the first invalid setting; or if no trial is left.
    """
    here = scale_of(ablation, scale)
    if overrides is not None:
        _check_overrides(ablation, overrides)
    entries: dict[str, Entry] = {}
    for placed in ablation.rows:
        trials = (
            Entry(trial, placed.row.label or trial.name, trial.label)
            for point in _points(ablation, placed, here, overrides)
            for trial in resolve(point, seeds)
        )
        some = list(itertools.islice(trials, MOST_TRIALS - len(entries) + 1))
        try:
            included = _chosen("only", some, placed.only)
        except UserError as error:
            raise ablation.document.problem(("include",), str(error)) from None
        for entry in included:
            entries.setdefault(entry.trial.key, entry)
        if len(entries) > MOST_TRIALS:
            problem = f"an ablation may have at most {MOST_TRIALS:,} trials"
            raise placed.document.problem(placed.keys, problem)
    chosen = _chosen("--only", list(entries.values()), only)
    if not chosen:
        if not only:
            there = ", ".join(name for name in ablation.scales if name != scale) or "none"
            words = f"no trial at scale {scale}: other scales: {there}"
            raise UserError(f"{ablation.document.name}: {words}")
        others = expand(ablation, scale, overrides=overrides, seeds=seeds)
        raise _no_match(ablation, here, only, others)
    known = entries.values()
    wrong = [n for n in names_in(only) if not any(matches(e.fields(), [n]) for e in known)]
    if wrong:
        raise _no_match(ablation, here, wrong, known)
    return _labelled(chosen)


def _no_match(
    ablation: Ablation, scale: str, asked: Sequence[str], entries: Collection[Entry]
) -> UserError:
    """Return the error that no trial matches the request; the message lists the valid names."""
    rows = ", ".join(dict.fromkeys(entry.name for entry in entries))
    tasks = ", ".join(dict.fromkeys(entry.trial.task for entry in entries))
    reason = f"no trial matches --only {' '.join(asked)} at scale {scale}"
    there = f"rows: {rows}; tasks: {tasks}: `gapbench run FILE --scale {scale} -n` shows them"
    return NothingFound(f"{ablation.document.name}: {reason}: {there}")


def scale_of(ablation: Ablation, name: str) -> str:
    """Return a scale of an ablation by its name.

    Raises:
        UserError: if the ablation has no such scale; the message names the scales.
    """
    if name in ablation.scales:
        return name
    raise UserError(f"{ablation.document.name}: {choose('scale', name, ablation.scales)}")


def _chosen(option: str, entries: list[Entry], patterns: Sequence[str]) -> list[Entry]:
    """Return the entries that match all patterns; a pattern's field must exist in some entry."""
    if not patterns:
        return entries
    fields = [entry.fields() for entry in entries]
    require_known_fields(option, patterns, fields)
    return [e for e, known in zip(entries, fields, strict=True) if matches(known, patterns)]


def _points(
    ablation: Ablation,
    placed: PlacedRow,
    scale: str,
    overrides: Document | None,
) -> Iterator[Configuration]:
    """Yield the configuration of a row's methods at each point of their grids."""
    row = placed.row
    if scale in row.scales and row.scales[scale] is None:
        return
    for method in row.method:
        given = _layered(ablation, placed, scale, method, overrides)
        for values in _product(given):
            yield Configuration(method, values, placed.document, placed.keys)


def _layered(
    ablation: Ablation,
    placed: PlacedRow,
    scale: str,
    method: str,
    overrides: Document | None,
) -> dict[str, Given]:
    """Merge the settings of one method's trials, from the outermost file in."""
    merged: dict[str, Given] = {}
    for at in ablation.scales[scale]:
        _merge(merged, _given(at.settings, method, at.document, at.keys))
        inner = at.settings.methods.get(method)
        if inner is not None:
            place = (*at.keys, "methods", method)
            _merge(merged, _given(inner, method, at.document, place))
    _merge(merged, _given(placed.row, method, placed.document, placed.keys))
    changed = placed.row.scales.get(scale)
    if changed is not None:
        place = (*placed.keys, "scales", scale)
        _merge(merged, _given(changed, method, placed.document, place))
    if overrides is not None:
        _merge(merged, _set(overrides, method))
    return merged


def _merge(merged: dict[str, Given], inner: dict[str, Given]) -> None:
    if "epochs" in inner and "train_flops" in inner:
        raise inner["train_flops"].problem("train_flops", "replaces epochs: give one of the two")
    for key in inner:
        merged.pop(ALTERNATIVES.get(key, key), None)
    merged.update(inner)


def _given(settings: Settings, method: str, document: Document, place: Keys) -> dict[str, Given]:
    """Return the settings of one block as a flat mapping, with their positions in the file."""
    found: dict[str, Given] = {}
    for key in AXES:
        values = getattr(settings, key)
        if values is not None:
            found[key] = Given((values,) if key == "seeds" else values, document, (*place, key))
    for outer in ("task_options", "recipe"):
        for inner, value in getattr(settings, outer).items():
            key = f"{outer}.{inner}"
            found[key] = Given(_values(method, key, value), document, (*place, outer, inner))
    if isinstance(settings, MethodSettings):
        for key, value in settings.options.items():
            found[key] = Given(_values(method, key, value), document, (*place, key))
    if isinstance(settings, Override) and settings.zip is not None:
        group = (document.name, *place, "zip")
        for key, values in settings.zip.axes().items():
            found[key] = Given(values, document, (*place, "zip", key), group)
    return found


def _values(method: str, key: str, value: object) -> tuple[Any, ...]:
    """Return the values of an axis; a list is one value if the field itself takes lists."""
    if not isinstance(value, list):
        return (value,)
    outer, _, inner = key.partition(".")
    model: type[BaseModel] = Recipe if outer == "recipe" else options_model(method)
    field = model.model_fields.get(inner if outer == "recipe" else key)
    return (value,) if field is not None and _takes_lists(field.annotation) else tuple(value)


def _takes_lists(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(map(_takes_lists, get_args(annotation)))


def _product(given: Mapping[str, Given]) -> Iterator[dict[str, Given]]:
    """Yield every combination of one value per key; keys of one zip move together."""
    groups: dict[object, list[str]] = {}
    for key, setting in given.items():
        if not setting.values:
            raise setting.problem(key, "[] is not possible: give at least one value")
        groups.setdefault(setting.group or key, []).append(key)
    lengths = [range(len(given[keys[0]].values)) for keys in groups.values()]
    points = math.prod(map(len, lengths))
    if points > MOST_POINTS:
        longest = max(given, key=lambda key: len(given[key].values))
        words = f"the lists of this row make {points:,} combinations"
        raise given[longest].problem(longest, f"{words}: give at most {MOST_POINTS:,}")
    for places in itertools.product(*lengths):
        chosen: dict[str, Given] = {}
        for keys, at in zip(groups.values(), places, strict=True):
            for key in keys:
                chosen[key] = replace(given[key], values=(given[key].values[at],))
        yield chosen


def _check_overrides(ablation: Ablation, overrides: Document) -> None:
    names = tuple(dict.fromkeys(name for placed in ablation.rows for name in placed.row.method))
    options = {key for name in names for key in options_model(name).model_fields}
    axes = [axis for axis in AXES if axis != "seeds"]
    recipe = [f"recipe.{key}" for key in RECIPE_KEYS]
    for key in overrides.data:
        if key not in (*axes, *recipe, *options) and not key.startswith("task_options."):
            raise UserError(f"--set: {choose('key', key, [*axes, *options, *recipe])}")


def _set(overrides: Document, method: str) -> dict[str, Given]:
    """Return the settings of `--set` for the trials of one method."""
    plain = {key: value for key, value in overrides.data.items() if key in AXES}
    if method == "dense":
        plain = {key: value for key, value in plain.items() if key not in OF_SPARSE_TRIALS}
    found = _given(validated(Settings, replace(overrides, data=plain)), method, overrides, ())
    options = options_model(method).model_fields
    for key, value in overrides.data.items():
        if "." in key or key in options:
            found[key] = Given(_values(method, key, value), overrides, (key,))
    return found


def _labelled(entries: Sequence[Entry]) -> list[Entry]:
    """Add to every label the settings that differ between trials of its name."""
    seen: dict[tuple[str, str], dict[str, set[str]]] = {}
    tasks: dict[str, set[str]] = {}
    words = [{key: str(value) for key, value in entry.trial.fields().items()} for entry in entries]
    for entry, fields in zip(entries, words, strict=True):
        tasks.setdefault(entry.name, set()).add(entry.trial.task)
        values = seen.setdefault((entry.name, entry.trial.task), {})
        for key, value in fields.items():
            values.setdefault(key, set()).add(value)
    silent = ("seed", "patterns", *OF_SPARSE_TRIALS)  # shown already, or implied
    labelled = []
    for entry, fields in zip(entries, words, strict=True):
        trial = entry.trial
        values = seen[entry.name, trial.task]
        details = [
            f"{key}={value}"
            for key, value in fields.items()
            if len(values[key]) > 1 and key not in silent
        ]
        several = [trial.task] if len(tasks[entry.name]) > 1 else []
        labelled.append(replace(entry, label=trial.describe(entry.name, *several, *details)))
    return labelled

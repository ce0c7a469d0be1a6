"""An ablation as read: its rows and scales, each with the place in a file it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from gapbench.errors import choose
from gapbench.methods.method import methods, options_model
from gapbench.places import ablation_file
from gapbench.spec.loading import Document, Keys, load
from gapbench.spec.schema import (
    RECIPE_KEYS,
    SCALES,
    AblationSpec,
    Axes,
    BaseSpec,
    Group,
    MethodSettings,
    Override,
    Row,
    Scale,
    ScaleSettings,
    validated,
)

OWN = ""  # the group of the rows that stand in none
PlacedScales = Mapping[Scale, "tuple[PlacedScale, ...]"]


@dataclass(frozen=True)
class PlacedRow:
    """A row with its group and the place it was read from.

    Attributes:
        only: patterns that its include picks trials by.
    """

    row: Row
    document: Document
    keys: Keys
    group: str
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlacedScale:
    """A scale's settings with the place they were read from."""

    settings: ScaleSettings
    document: Document
    keys: Keys


@dataclass(frozen=True)
class Ablation:
    """An ablation file with everything that it includes.

    Attributes:
        spec: the file itself.
        document: where it was read from.
        rows: of each group the included rows, then its own.
        groups: by group, for each scale it has, settings from the outermost in.
    """

    spec: AblationSpec
    document: Document
    rows: tuple[PlacedRow, ...]
    groups: Mapping[str, PlacedScales]

    @property
    def name(self) -> str:
        """The ablation's name."""
        return self.spec.name

    @property
    def scales(self) -> PlacedScales:
        """The scales that the ablation has; a group may lack some of them."""
        return self.groups[OWN]


def read(file: Path) -> Ablation:
    """Read an ablation file, the files it includes and the scales it starts from.

    Args:
        file: the file, or the name of an ablation that comes with the package.

    Raises:
        UserError: naming file, line, key and the valid choices.
    """
    document = load(ablation_file(file))
    spec = validated(AblationSpec, document)
    rows: list[PlacedRow] = []
    groups: dict[str, PlacedScales] = {}
    for name, group in {OWN: spec, **spec.groups}.items():
        place: Keys = ("groups", name) if name else ()
        rows += _included(group, document, place, name)
        rows += _rows(group, document, place, name)
        groups[name] = _scales(group, document, place)
    if not rows:
        raise document.problem(("trials",), "there is no trial here, nor in an included file")
    ablation = Ablation(spec, document, tuple(rows), groups)
    _check_keys(ablation)
    return ablation


def _included(group: Group, document: Document, place: Keys, name: str) -> Iterator[PlacedRow]:
    for number, include in enumerate(group.include):
        inner = load(_beside(document, (*place, "include", number), include.file))
        included = validated(AblationSpec, inner)
        if included.include:
            raise inner.problem(("include",), "a file that is included cannot include another")
        if included.groups:
            raise inner.problem(("groups",), "a file that is included cannot have groups")
        for row in _rows(included, inner, (), name):
            yield replace(row, only=include.only)


def _rows(group: Group, document: Document, place: Keys, name: str) -> Iterator[PlacedRow]:
    for number, row in enumerate(group.trials):
        yield PlacedRow(row, document, (*place, "trials", number), name)


def _scales(group: Group, document: Document, place: Keys) -> PlacedScales:
    places = {
        name: (PlacedScale(settings, document, (*place, "scales", name)),)
        for name, settings in group.scales.items()
    }
    if group.base is not None:
        outer = load(_beside(document, (*place, "base"), group.base))
        base = validated(BaseSpec, outer).scales
        for name in places or base:
            first = PlacedScale(base.get(name, ScaleSettings()), outer, ("scales", name))
            places[name] = (first, *places.get(name, ()))
    if not places:
        words = f"no scale is given: valid: {', '.join(SCALES)}"
        raise document.problem((*place, "scales"), words)
    return {name: places[name] for name in SCALES if name in places}


def _beside(document: Document, keys: Keys, name: str) -> Path:
    path = Path(document.name).parent / name
    if not os.path.isfile(path):
        raise document.problem(keys, f"{name!r} is no file (looked for {path})")
    return path


def _check_keys(ablation: Ablation) -> None:
    """Find misspelt keys of rows and of methods' defaults, in every scale."""
    for placed in ablation.rows:
        row, names = placed.row, placed.row.method
        for name in names:
            if name not in methods:
                keys = (*placed.keys, "method")
                raise placed.document.problem(keys, choose("method", name, methods))
        _check_settings(row, names, placed.document, placed.keys)
        for scale, override in row.scales.items():
            if override is not None:
                place = (*placed.keys, "scales", scale)
                _check_settings(override, names, placed.document, place)
    for scales in chain.from_iterable(group.values() for group in ablation.groups.values()):
        for at in scales:
            _check_recipe(at.settings.recipe, at.document, (*at.keys, "recipe"))
            for name, settings in at.settings.methods.items():
                place = (*at.keys, "methods", name)
                if name not in methods:
                    raise at.document.problem(place, choose("method", name, methods))
                _check_settings(settings, (name,), at.document, place)


def _check_settings(
    settings: MethodSettings, names: tuple[str, ...], document: Document, place: Keys
) -> None:
    fields = [name for name in type(settings).model_fields if name != "options"]
    for key in settings.options:
        _check_option(key, names, fields, document, (*place, key))
    _check_recipe(settings.recipe, document, (*place, "recipe"))
    if not isinstance(settings, Override) or settings.zip is None:
        return
    zipped = settings.zip.axes()
    at = (*place, "zip")
    if len({len(values) for values in zipped.values()}) != 1:
        raise document.problem(at, "needs one list or more, all of the same length")
    for key in zipped:
        outer, _, inner = key.partition(".")
        if outer == "recipe":
            _check_recipe({inner: None}, document, at)
        elif key not in Axes.model_fields and outer != "task_options":
            _check_option(key, names, tuple(Axes.model_fields), document, (*at, key))


def _check_option(
    key: str, names: tuple[str, ...], fields: Sequence[str], document: Document, place: Keys
) -> None:
    for name in names:
        options = options_model(name).model_fields
        if key not in options:
            raise document.problem(place, choose("key", key, [*fields, *options]))


def _check_recipe(recipe: Mapping[str, Any], document: Document, place: Keys) -> None:
    for key in recipe:
        if key not in RECIPE_KEYS:
            raise document.problem((*place, key), choose("key", key, RECIPE_KEYS))

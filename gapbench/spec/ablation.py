"""Reading of ablations: rows and scales, each with its position in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gapbench.base.places import ablation_file
from gapbench.base.registry import load_plugin
from gapbench.errors import choose
from gapbench.methods.method import methods, options_model
from gapbench.spec.loading import Document, Keys, load
from gapbench.spec.schema import (
    RECIPE_KEYS,
    AblationSpec,
    Axes,
    BaseSpec,
    MethodSettings,
    Override,
    Row,
    ScaleSettings,
    validated,
)

PlacedScales = Mapping[str, "tuple[PlacedScale, ...]"]
Bases = dict[str, tuple[Mapping[str, ScaleSettings], Document]]  # by their real paths


@dataclass(frozen=True)
class PlacedRow:
    """A row with its position in a file.

    Attributes:
        only: patterns by which the row's include picks trials.
    """

    row: Row
    document: Document
    keys: Keys
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlacedScale:
    """A scale's settings with their position in a file."""

    settings: ScaleSettings
    document: Document
    keys: Keys


@dataclass(frozen=True)
class Ablation:
    """An ablation file with all its includes.

    Attributes:
        spec: the content of the file.
        document: the document of the file.
        rows: the included rows, then the file's own rows.
        scales: settings of each scale, from the outermost file in; in the file's order.
    """

    spec: AblationSpec
    document: Document
    rows: tuple[PlacedRow, ...]
    scales: PlacedScales

    @property
    def name(self) -> str:
        """The ablation's name."""
        return self.spec.name


def read(file: Path) -> Ablation:
    """Read an ablation file, its includes, and its base file of scales.

    Args:
        file: the file, or the name of an ablation that comes with the package.

    Raises:
        UserError: naming file, line, key and the valid choices.
    """
    document = load(ablation_file(file), ": `gapbench list ablations` lists the ablations")
    spec = validated(AblationSpec, document)
    for number, name in enumerate(spec.plugins):
        load_plugin(_beside(document, ("plugins", number), name))
    bases: Bases = {}
    scales = _scales(spec, document, bases)
    rows = (*_included(spec, document, scales, bases), *_rows(spec, document, scales, bases))
    if not rows:
        raise document.problem(("trials",), "no trial here or in an included file")
    ablation = Ablation(spec, document, rows, scales)
    _check_keys(ablation)
    return ablation


def _included(
    spec: AblationSpec, document: Document, scales: PlacedScales, bases: Bases
) -> Iterator[PlacedRow]:
    for number, include in enumerate(spec.include):
        inner = load(_beside(document, ("include", number), include.file))
        included = validated(AblationSpec, inner)
        if included.include:
            raise inner.problem(("include",), "an included file cannot include another file")
        for row in _rows(included, inner, scales, bases):
            yield replace(row, only=include.only)


def _rows(
    spec: AblationSpec, document: Document, scales: PlacedScales, bases: Bases
) -> Iterator[PlacedRow]:
    """Yield the rows of a file; rows may name scales of the file and scales of the ablation."""
    known = {**scales, **spec.scales, **_base(spec, document, bases)[0]}
    for number, row in enumerate(spec.trials):
        for name in row.scales:
            if name not in known:
                place = ("trials", number, "scales", name)
                raise document.problem(place, choose("scale", name, known))
        yield PlacedRow(row, document, ("trials", number))


def _base(
    spec: AblationSpec, document: Document, bases: Bases
) -> tuple[Mapping[str, ScaleSettings], Document]:
    """Return the scales of a file's base file, and the document of the base file.

    Args:
        spec: the content of the file.
        document: the document of the file.
        bases: base files that were read before; included files mostly share a base file.
    """
    if spec.base is None:
        return {}, document
    path = _beside(document, ("base",), spec.base)
    real = os.path.realpath(path)
    if real not in bases:
        outer = load(path)
        bases[real] = validated(BaseSpec, outer).scales, outer
    return bases[real]


def _scales(spec: AblationSpec, document: Document, bases: Bases) -> PlacedScales:
    base, outer = _base(spec, document, bases)
    found: dict[str, tuple[PlacedScale, ...]] = {}
    for name in spec.scales or base:
        places = [
            PlacedScale(scales[name], at, ("scales", name))
            for scales, at in ((base, outer), (spec.scales, document))
            if name in scales
        ]
        if spec.base is not None and name not in base and spec.scales[name] == ScaleSettings():
            raise document.problem(("scales", name), choose("scale", name, base))
        found[name] = tuple(places)
    if not found:
        raise document.problem(("scales",), "no scale is given, such as smoke: {task: digits}")
    return found


def _beside(document: Document, keys: Keys, name: str) -> Path:
    path = Path(document.name).parent / name
    if not os.path.isfile(path):
        raise document.problem(keys, f"{name!r} is not a file (looked for {path})")
    return path


def _check_keys(ablation: Ablation) -> None:
    """Check the keys of rows and of methods' settings in every scale."""
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
    for scales in ablation.scales.values():
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
        raise document.problem(at, "needs at least one list, and lists of equal length")
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

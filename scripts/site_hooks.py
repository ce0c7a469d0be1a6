"""What mkdocs asks of this repository: pages made from code, and results beside the docs.

The reference of commands and of ablation files is written at each build, so that it cannot differ
from the code. `griffe`, which mkdocstrings brings, reads the docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gapbench.__main__ import app
from gapbench.methods.method import methods
from gapbench.spec import schema
from gapbench.spec.editors import json_schema
from gapbench.tasks.task import Recipe, tasks

ROOT = Path(__file__).parent.parent
MODELS = {
    "The file": schema.AblationSpec,
    "scales: one scale": schema.ScaleSettings,
    "trials: one row": schema.Row,
    "include: one file": schema.Include,
    "claims: one claim": schema.Claim,
    "report": schema.Report,
}
KINDS = {
    "distributions": "gapbench.sparsity.distributions",
    "patterns": "gapbench.sparsity.pattern",
    "updates": "gapbench.plan.update",
    "scores": "gapbench.sparsity.score",
    "transforms": "gapbench.sparsity.transform",
    "executors": "gapbench.launch.jobs",
    "figures": "gapbench.report.canvas",
}
Rows = Sequence[tuple[str, ...]]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and what is published: scale mini, and speed on a GPU."""
    for name, text in (("commands", commands_page()), ("ablation-files", ablations_page())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for path in (ROOT / "results" / "gpu.md", *sorted((ROOT / "results" / "mini").rglob("*"))):
        if path.suffix in (".md", ".svg"):
            place = str(path.relative_to(ROOT))
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links that leave docs/ for results/ to where results/ is in the site."""
    return re.sub(r"\]\(\.\./((?:\.\./)*)results/", r"](\1results/", markdown)


def commands_page() -> str:
    """Return the reference of all commands."""
    lines = [
        "# Commands\n",
        "`python -m gapbench.run FILE` is `gapbench run FILE`. Exit code 0: all done; 1: a trial "
        "failed, or a checked table differs; 2: bad input, said in one line; 130: interrupted. "
        "[What commands leave behind](../commands.md).\n",
    ]
    for path, command in _commands(typer.main.get_command(app), "gapbench"):
        rows = [
            (
                ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)),
                parameter.help or "",
                _shown(parameter.default),
            )
            for parameter in command.params
        ]
        lines += _section(path, command.help, ("option", "meaning", "default"), rows)
    return "\n".join(lines)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def ablations_page() -> str:
    """Return the reference of all keys of ablation files, and of all names that they may have."""
    known = json_schema()
    definitions = known["$defs"]
    lines = [
        "# Ablation files\n",
        "The keys of the YAML files that `gapbench run` reads, from the models that check them; "
        "`gapbench schema` prints the same for editors. All keys of a scale but `methods` may "
        "stand in a row, too: the row's go before the scale's, and `--set` before both.\n",
    ]
    for title, model in MODELS.items():
        kinds = (known if model is schema.AblationSpec else definitions[model.__name__])[
            "properties"
        ]
        inner = schema.ScaleSettings.model_fields if model is schema.Row else {}
        about, words = _told(model)
        rows = [
            (f"`{name}`", _kind(kinds[name]), words[name], _shown(field.default))
            for name, field in model.model_fields.items()
            if name not in (*inner, "options")
        ]
        lines += _section(title, about, ("key", "value", "meaning", "default"), rows)
    about, words = _told(Recipe)
    kinds = definitions["Recipe"]["properties"]
    rows = [
        (f"`{name}`", _kind(kinds[name]["anyOf"][0]), words[name], _shown(field.default))
        for name, field in Recipe.model_fields.items()
        if name in schema.RECIPE_KEYS
    ]
    lines += _section("recipe", about, ("key", "value", "meaning", "default"), rows)
    for name in methods:
        lines += _options(f"Method {name}", methods[name].build, methods[name].build)
    for name in tasks:
        lines += _options(f"Task {name}", tasks[name], tasks[name].__init__)
    for kind, module in KINDS.items():
        registry = getattr(import_module(module), kind)
        entries = {name: getattr(registry[name], "spread", registry[name]) for name in registry}
        rows = [(f"`{name}`", _told(entry)[0]) for name, entry in entries.items()]
        lines += _section(kind.capitalize(), "", ("name", "what it does"), rows)
    return "\n".join(lines)


def _options(title: str, told: Any, function: Any) -> list[str]:
    """Return the section of a method or task, whose options are arguments with defaults."""
    about, words = _told(told)
    hints = get_type_hints(function)
    rows = [
        (
            f"`{name}`",
            f"`{inspect.formatannotation(hints[name])}`",
            words[name],
            _shown(one.default),
        )
        for name, one in inspect.signature(function).parameters.items()
        if one.default is not one.empty
    ]
    return _section(title, about, ("option", "type", "meaning", "default"), rows)


def _section(title: str, about: str, heads: tuple[str, ...], rows: Rows) -> list[str]:
    columns = [at for at in range(len(heads)) if any(row[at] for row in rows)]
    lines = [heads, ("---",) * len(heads), *rows] if rows else []
    cells = ([line[at].replace("|", "\\|") for at in columns] for line in lines)
    table = "".join(f"| {' | '.join(line)} |\n" for line in cells)
    return [f"## {title}\n", *([f"{about}\n"] if about else []), table]


def _told(entry: Any) -> tuple[str, dict[str, str]]:
    """Return the first paragraph of a docstring, and what it says of attributes or arguments."""
    about, words = "", dict[str, str]()
    if isinstance(entry, type) and issubclass(entry, schema.Strict):
        words = _told(entry.__base__)[1]
    for section in griffe.Docstring(inspect.getdoc(entry) or "").parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            about = about or section.value.partition("\n\n")[0]
        elif section.kind.value in ("attributes", "parameters"):
            words |= {one.name: " ".join(one.description.split()) for one in section.value}
    return about, words


def _kind(spec: Mapping[str, Any]) -> str:
    """Return the values that a JSON Schema allows, in a few words."""
    choices = [_kind(one) for one in spec.get("anyOf", ()) if one.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(choices))
    if "enum" in spec:
        return " or ".join(f"`{value}`" for value in spec["enum"])
    if spec.get("type") == "array":
        return f"list of {_kind(spec['items'])}" if "items" in spec else "list"
    names = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    return {"number": "number", **names}.get(spec.get("type", ""), "mapping")


def _shown(value: object) -> str:
    empty = value in (None, (), {}, PydanticUndefined) or isinstance(value, BaseModel)
    return "" if empty else f"`{str(value).lower() if isinstance(value, bool) else value}`"

"""The JSON Schema of ablation files, from which editors complete and check them."""

from __future__ import annotations

from typing import Any

from gapbench.experiments.schema import RECIPE_KEYS, AblationSpec, Settings
from gapbench.methods.method import methods, options_model
from gapbench.tasks.task import Recipe


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of ablation files, with every method's options, for editors."""
    schema = AblationSpec.model_json_schema()
    options: dict[str, Any] = {}
    for name in methods:
        for key, value in options_model(name).model_json_schema()["properties"].items():
            options[key] = _value_or_list({k: v for k, v in value.items() if k != "default"})
    recipe = Recipe.model_json_schema()["properties"]
    for name, definition in schema["$defs"].items():
        fields = definition.get("properties", {})
        for key in fields:
            if key == "recipe":
                lists = {k: _value_or_list(recipe[k]) for k in RECIPE_KEYS}
                closed = {"type": "object", "additionalProperties": False}
                fields[key] = {**closed, "properties": lists}
            elif _is_axis(name, key):
                fields[key] = _one_too(fields[key])
        if "options" in fields:
            del fields["options"]
            fields.update(options)
    _let_shorthands_in(schema)
    return schema


def _is_axis(name: str, key: str) -> bool:
    return key == "method" or (key in Settings.model_fields and key not in ("task_options",))


def _one_too(array: dict[str, Any]) -> dict[str, Any]:
    choices = array.get("anyOf", [array])
    items = [choice["items"] for choice in choices if choice.get("type") == "array"]
    return {"anyOf": [*items, *choices]}


def _value_or_list(value: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [value, {"type": "array", "items": value}]}


def _let_shorthands_in(schema: dict[str, Any]) -> None:
    """Allow `include: [file]`, `mini: false` in a row and an empty scale."""
    include = schema["properties"]["include"]
    include["items"] = {"anyOf": [{"type": "string"}, include["items"]]}
    for holder in (schema["properties"]["scales"], schema["$defs"]["Row"]["properties"]["scales"]):
        inner = holder["additionalProperties"]
        holder["additionalProperties"] = {"anyOf": [inner, {"type": "null"}, {"const": False}]}

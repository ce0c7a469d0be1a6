"""The JSON Schema of ablation files, with which editors complete and check the files."""

from __future__ import annotations

from typing import Any

from gapbench.methods.method import methods, options_model
from gapbench.spec.schema import AXES, RECIPE_KEYS, AblationSpec
from gapbench.tasks.task import Recipe

Json = dict[str, Any]


def json_schema() -> Json:
    """Return the JSON Schema of ablation files, with the options of every method."""
    schema = AblationSpec.model_json_schema()
    definitions: Json = schema["$defs"]
    options = _options()
    recipe = Recipe.model_json_schema()["properties"]
    for definition in list(definitions.values()):
        fields = definition["properties"]
        for key in fields:
            if key in AXES or key == "method":
                fields[key] = _one_too(fields[key])
            elif key == "recipe":
                fields[key] = {"$ref": "#/$defs/Recipe"}
        if fields.pop("options", None) is not None:
            fields.update({key: {"$ref": f"#/$defs/{key}"} for key in options})
    definitions["Recipe"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _value_or_list(recipe[key]) for key in RECIPE_KEYS},
    }
    definitions.update({key: _value_or_list(value) for key, value in options.items()})
    _let_shorthands_in(schema)
    plain = _without_titles(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **plain}


def _options() -> Json:
    """Return the schema of every option; methods that share a name share its meaning."""
    found: Json = {}
    for name in methods:
        found.update(options_model(name).model_json_schema().get("properties", {}))
    return found


def _one_too(array: Json) -> Json:
    choices = [choice for choice in array.get("anyOf", [array]) if choice.get("type") == "array"]
    return {"anyOf": [*(choice["items"] for choice in choices), *choices]}


def _value_or_list(value: Json) -> Json:
    plain = {key: inner for key, inner in value.items() if key != "default"}
    return {"anyOf": [plain, {"type": "array", "items": plain}]}


def _let_shorthands_in(schema: Json) -> None:
    """Allow `include: [file]`, `mini: false` in a row, and an empty scale."""
    include = schema["properties"]["include"]
    include["items"] = {"anyOf": [{"type": "string"}, include["items"]]}
    in_row = schema["$defs"]["Row"]["properties"]["scales"]
    row = {"anyOf": [{"$ref": "#/$defs/Override"}, {"const": False}]}
    scale = {"anyOf": [{"$ref": "#/$defs/ScaleSettings"}, {"type": "null"}]}
    for scales, settings in ((in_row, row), (schema["properties"]["scales"], scale)):
        [pattern] = scales["patternProperties"]
        scales["patternProperties"] = {pattern: settings}
        scales["additionalProperties"] = False


def _without_titles(node: Any) -> Any:
    if isinstance(node, dict):
        named = {k: v for k, v in node.items() if k != "title" or not isinstance(v, str)}
        return {key: _without_titles(value) for key, value in named.items()}
    return [_without_titles(item) for item in node] if isinstance(node, list) else node

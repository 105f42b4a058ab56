from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from bearerd.config import types
from bearerd.config.load import schema

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
# Every keyword of draft 2020-12 that this schema has a use for, by the type of its value.
KEYWORDS: dict[str, type | tuple[type, ...]] = {
    "$schema": str,
    "$defs": dict,
    "$ref": str,
    "type": str,
    "title": str,
    "description": str,
    "default": object,
    "examples": list,
    "enum": list,
    "properties": dict,
    "required": list,
    "additionalProperties": (bool, dict),
    "patternProperties": dict,
    "propertyNames": dict,
    "minProperties": int,
    "items": dict,
    "minItems": int,
    "anyOf": list,
    "oneOf": list,
    "pattern": str,
    "format": str,
    "minLength": int,
    "minimum": (int, float),
    "maximum": (int, float),
}
TYPES = {"object", "array", "string", "integer", "number", "boolean"}


def subschemas(here: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all that it holds."""
    yield here
    for keyword in ("$defs", "properties", "patternProperties"):
        for inner in here.get(keyword, {}).values():
            yield from subschemas(inner)
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(here.get(keyword), dict):
            yield from subschemas(here[keyword])
    for keyword in ("anyOf", "oneOf"):
        for inner in here.get(keyword, []):
            yield from subschemas(inner)


def resolved(whole: dict[str, Any], here: dict[str, Any]) -> list[dict[str, Any]]:
    """What a subschema stands for: its reference followed, its alternatives side by side."""
    if "$ref" in here:
        here = whole["$defs"][here["$ref"].removeprefix("#/$defs/")]
    alternatives = [*here.get("anyOf", []), *here.get("oneOf", [])]
    return [found for inner in alternatives for found in resolved(whole, inner)] or [here]


def unknown(whole: dict[str, Any], here: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """The keys of a value that a schema does not name."""
    shapes = resolved(whole, here)
    if isinstance(value, list):
        items = [shape["items"] for shape in shapes if "items" in shape]
        return [found for item in value for found in unknown(whole, items[0], item, path)] if items else [path]
    if not isinstance(value, dict):
        return []
    faults: list[str] = []
    for key, inner in value.items():
        found = [below for shape in shapes for below in children(shape, key)]
        faults += unknown(whole, found[0], inner, f"{path}/{key}") if found else [f"{path}/{key}"]
    return faults


def children(shape: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """What a mapping's schema says of one key: by its name, or of any name."""
    if key in shape.get("properties", {}):
        yield shape["properties"][key]
    yield from shape.get("patternProperties", {}).values()
    if isinstance(shape.get("additionalProperties"), dict):
        yield shape["additionalProperties"]


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that a type is made of, with those inside them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for argument in get_args(annotation):
        yield from models(argument)


ALL_MODELS = sorted(set(models(types.ConfigFile)), key=lambda model: model.__name__)


def test_the_schema_is_of_the_draft_that_it_names() -> None:
    whole = json.loads(json.dumps(schema()))
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for here in subschemas(whole):
        for keyword, value in here.items():
            assert isinstance(value, KEYWORDS[keyword]), here
        assert here.get("type", "object") in TYPES, here
        assert set(here.get("required", [])) <= set(here.get("properties", {})), here
        if "$ref" in here:
            assert here["$ref"].removeprefix("#/$defs/") in whole["$defs"], here


def test_the_walk_finds_every_model() -> None:
    # The tests below are only worth what the walk finds.
    assert [model.__name__ for model in ALL_MODELS] == [
        "ClientModel",
        "ConfigFile",
        "FileModel",
        "LogModel",
        "OutputModel",
        "ProviderModel",
        "ReferenceModel",
        "TokenModel",
    ]


@pytest.mark.parametrize("model", ALL_MODELS)
def test_the_schema_lists_every_key_of_a_model_and_allows_no_other(model: type[BaseModel]) -> None:
    whole = schema()
    here = whole if model is types.ConfigFile else whole["$defs"][model.__name__]
    assert list(here["properties"]) == list(model.model_fields)
    assert here["additionalProperties"] is False
    assert set(here.get("required", [])) == {name for name, field in model.model_fields.items() if field.is_required()}


def test_the_schema_knows_every_key_of_the_example() -> None:
    whole = schema()
    value = yaml.safe_load(EXAMPLE.read_text())
    assert unknown(whole, whole, value) == []


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({"listen": {}}, ["/listen"]),
        ({"clients": {"dnb": {"tokens": {"bci": {"on_change": []}}}}}, ["/clients/dnb/tokens/bci/on_change"]),
        ({"files": [{"format": "raw", "template": "x"}]}, ["/files/template"]),
        ({"clients": {"dnb": {"client_id": {"vault": "x"}}}}, ["/clients/dnb/client_id/vault"]),
    ],
)
def test_the_walk_over_the_example_sees_what_the_schema_does_not_know(value: Any, paths: list[str]) -> None:
    whole = schema()
    assert unknown(whole, whole, value) == paths


def test_the_schema_takes_nothing_for_no_value() -> None:
    # As the loader: `proxy:` with nothing after it is an unfinished line. An editor would offer a default of null.
    for here in subschemas(schema()):
        assert here.get("type") != "null"
        assert here.get("default", "") is not None

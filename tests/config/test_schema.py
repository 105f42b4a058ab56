from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from bearerd.config.keys import KEYS, key_of
from bearerd.config.load import schema
from bearerd.config.models import ConfigFile
from bearerd.terms import TEMPLATES

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
# The keywords of draft 2020-12 that this schema uses, with the type of their values.
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
    "maxItems": int,
    "anyOf": list,
    "oneOf": list,
    "pattern": str,
    "format": str,
    "minLength": int,
    "minimum": (int, float),
    "maximum": (int, float),
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def subschemas(here: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all of its subschemas."""
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
    """The alternatives of a subschema, with references resolved."""
    if "$ref" in here:
        here = whole["$defs"][here["$ref"].removeprefix("#/$defs/")]
    alternatives = [*here.get("anyOf", []), *here.get("oneOf", [])]
    return [found for inner in alternatives for found in resolved(whole, inner)] or [here]


def unknown(whole: dict[str, Any], here: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """The keys of a value that its schema does not have."""
    shapes = resolved(whole, here)
    if {} in shapes:
        return []  # any value is allowed, as for a claim
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
    """The schema of a key in a mapping: by its name, or for any name."""
    if key in shape.get("properties", {}):
        yield shape["properties"][key]
    yield from shape.get("patternProperties", {}).values()
    others = shape.get("additionalProperties", False)
    if others is not False:
        yield {} if others is True else others


def fits(whole: dict[str, Any], here: dict[str, Any], value: Any) -> bool:
    """Whether a value matches a schema, by the keywords in KEYWORDS."""
    if "$ref" in here:
        here = whole["$defs"][here["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in here and not any(fits(whole, inner, value) for inner in here["anyOf"]):
        return False
    if "oneOf" in here and [fits(whole, inner, value) for inner in here["oneOf"]].count(True) != 1:
        return False
    if "type" in here and (
        not isinstance(value, TYPES[here["type"]]) or (isinstance(value, bool) and here["type"] != "boolean")
    ):
        return False
    if isinstance(value, dict | list):
        return holds(whole, here, value)
    if isinstance(value, str):
        right = len(value) >= here.get("minLength", 0) and re.search(here.get("pattern", ""), value) is not None
        return right and value in here.get("enum", [value])
    return bool(here.get("minimum", value) <= value <= here.get("maximum", value))


def holds(whole: dict[str, Any], here: dict[str, Any], value: dict[str, Any] | list[Any]) -> bool:
    """The same for the items of a mapping or a list."""
    if isinstance(value, list):
        enough = here.get("minItems", 0) <= len(value) <= here.get("maxItems", len(value))
        return enough and all(fits(whole, here.get("items", {}), item) for item in value)
    enough = len(value) >= here.get("minProperties", 0) and set(here.get("required", [])) <= value.keys()
    # Without additionalProperties, other keys are allowed.
    of_each = {key: next(children({"additionalProperties": True} | here, key), None) for key in value}
    return enough and all(inner is not None and fits(whole, inner, value[key]) for key, inner in of_each.items())


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model in a type, including nested ones."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for argument in get_args(annotation):
        yield from models(argument)


ALL_MODELS = sorted(set(models(ConfigFile)), key=lambda model: model.__name__)


def test_the_schema_is_valid_in_its_draft() -> None:
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
    # The tests below depend on the models that the walk finds.
    assert [model.__name__ for model in ALL_MODELS] == [
        "ChangeHookModel",
        "ClientModel",
        "ConfigFile",
        "ControlModel",
        "FailureHookModel",
        "FileModel",
        "ListenModel",
        "LogModel",
        "OutputModel",
        "ProviderModel",
        "ProxyModel",
        "RedisModel",
        "ReferenceModel",
        "ShareModel",
        "TokenModel",
    ]


@pytest.mark.parametrize("model", ALL_MODELS)
def test_the_schema_lists_every_key_of_a_model_and_allows_no_other(model: type[BaseModel]) -> None:
    whole = schema()
    here = whole if model is ConfigFile else whole["$defs"][model.__name__]
    assert list(here["properties"]) == list(model.model_fields)
    assert here["additionalProperties"] is False
    assert set(here.get("required", [])) == {name for name, field in model.model_fields.items() if field.is_required()}


def test_every_property_of_the_schema_has_a_description_and_no_description_is_left_over() -> None:
    used = set()
    for model in ALL_MODELS:
        here = schema() if model is ConfigFile else schema()["$defs"][model.__name__]
        for key, value in here["properties"].items():
            assert value["description"].startswith(key_of(model.__name__, key).text)
            own = f"{model.__name__}.{key}"
            used.add(own if own in KEYS else key)
    assert used == KEYS.keys()


def test_the_schema_knows_every_key_of_the_example() -> None:
    whole = schema()
    value = yaml.safe_load(EXAMPLE.read_text())
    assert unknown(whole, whole, value) == []


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({"listen": {"port": 1}}, ["/listen/port"]),
        ({"clients": {"dnb": {"tokens": {"bci": {"on": []}}}}}, ["/clients/dnb/tokens/bci/on"]),
        ({"files": [{"format": "raw", "newlines": True}]}, ["/files/newlines"]),
        ({"clients": {"dnb": {"client_id": {"vault": "x"}}}}, ["/clients/dnb/client_id/vault"]),
    ],
)
def test_the_walk_over_the_example_finds_unknown_keys(value: Any, paths: list[str]) -> None:
    whole = schema()
    assert unknown(whole, whole, value) == paths


def test_the_schema_allows_no_null() -> None:
    # Like the loader, for which `proxy:` without a value is an unfinished line. An editor would offer null as default.
    for here in subschemas(schema()):
        assert here.get("type") != "null"
        assert here.get("default", "") is not None


REFERENCE = {"file": "/s"}


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        pytest.param(
            "client_secret",
            [REFERENCE, [REFERENCE], [{"env": "A"}] * 8, {"command": ["/bin/pass", "x"]}],
            ["hunter2", [], [REFERENCE] * 9, [REFERENCE, "hunter2"], [[REFERENCE]], {"vault": "x"}, {"file": "s"}],
            id="a secret, alone or listed",
        ),
        pytest.param(
            "parameters",
            [{}, {"a": ""}, {"a": REFERENCE}, {"a": ["x", REFERENCE]}, {"a": "x", "b": [REFERENCE]}],
            ["a", ["a"], {"a": 1}, {"a": ["x", 1]}, {"a": [["x"]]}, {"a": {"vault": "x"}}],
            id="parameters of text and references, alone or listed",
        ),
        pytest.param(
            "client_id", ["a", {"env": "ID"}], [5, ["a"], {"vault": "x"}], id="a client id, as text or as a reference"
        ),
        *(
            pytest.param(key, [REFERENCE], ["/k", [REFERENCE], {"vault": "x"}], id=key)
            for key in (
                *("private_key", "certificate", "assertion", "subject_token"),
                *("tls_certificate", "tls_private_key"),
            )
        ),
        pytest.param(
            "assertion_claims", [{}, {"a": {"b": [1, True, {"c": 1.5}]}}], ["a", ["a"]], id="claims of any shape"
        ),
        pytest.param("issuer", ["https://i"], [5, {"url": "https://i"}], id="issuer"),
        pytest.param("auth", ["none", "tls_client_auth"], ["digest", ["none"]], id="auth"),
        pytest.param("algorithm", ["EdDSA", "HS512"], ["none", "rs256"], id="algorithm"),
        pytest.param("scope_in", ["form", "assertion"], ["body"], id="scope_in"),
        pytest.param("scope_separator", [" ", ",", "%20;"], ["", "12345", "ä", 5], id="scope_separator"),
        pytest.param("body", ["form", "json"], ["xml", 5], id="body"),
        pytest.param("headers", [{}, {"X": "a", "Y": REFERENCE}], ["a", {"X": 5}, {"X": ["a"]}], id="headers"),
        pytest.param("grant_type", ["urn:x"], [5], id="grant_type"),
        pytest.param("token_field", ["id_token", "data.access_token"], ["", "a..b", 5, ["a"]], id="token_field"),
        pytest.param("refused_limit", ["4/2m", "100/1d", "1/s"], ["0/s", "101/s", "4", 4], id="refused_limit"),
        pytest.param("max_age", ["never", "24h", "1.5d"], ["Never", "24", 24], id="max_age"),
        pytest.param("publish_delay", ["0s", "30s", "1h"], ["30", 30, "never"], id="publish_delay"),
        pytest.param(
            "share",
            [
                {"redis": {"url": "rediss://h"}},
                {"redis": {"url": REFERENCE, "password": REFERENCE, "timeout": "500ms"}, "when_unavailable": "wait"},
                {"redis": {"url": "unix:///s", "prefix": "a:b"}, "key": REFERENCE},
            ],
            ["redis://h", {}, {"redis": "redis://h"}, {"redis": {}}, {"redis": {"url": "redis://h", "prefix": "*"}}]
            + [{"redis": {"url": "redis://h"}, **more} for more in ({"key": "k"}, {"when_unavailable": "stop"})],
            id="share",
        ),
        pytest.param("lifetime_unit", ["auto", "milliseconds"], ["s", 1], id="lifetime_unit"),
    ],
)
def test_the_schema_accepts_valid_clients_and_nothing_else(key: str, right: list[Any], wrong: list[Any]) -> None:
    whole = schema()
    client = {"client_id": "a", "tokens": {"t": {}}}
    assert [value for value in right if not fits(whole, whole, {"clients": {"c": client | {key: value}}})] == []
    assert [value for value in wrong if fits(whole, whole, {"clients": {"c": client | {key: value}}})] == []


def test_the_schema_requires_only_tokens_of_a_client() -> None:
    # Its other required keys depend on its auth.
    whole = schema()
    assert fits(whole, whole, {"clients": {"c": {"tokens": {"t": {}}}}})
    assert not fits(whole, whole, {"clients": {"c": {"tokens": {}}}})
    assert not fits(whole, whole, {"clients": {"c": {}}})


@pytest.mark.parametrize(("directory", "right"), [("/var/lib/bearerd", True), ("state", False), (5, False)])
def test_the_schema_accepts_absolute_state_directories(directory: Any, right: bool) -> None:
    whole = schema()
    assert fits(whole, whole, {"state_directory": directory}) is right


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        pytest.param(
            "template",
            [*TEMPLATES, "/etc/bearerd/own.j2"],
            ["ngnix", "nginx.j2", "etc/own.j2", "nginx ", "", 5, ["nginx"]],
            id="a template by its name or its absolute path",
        ),
        pytest.param(
            "vars",
            [{}, {"a": "b", "_C2": "d"}],
            ["a", ["a"], {"a": 5}, {"a": ["b"]}, {"a": {"b": "c"}}],
            id="texts by their names",
        ),
    ],
)
def test_the_schema_accepts_valid_templates_and_nothing_else(key: str, right: list[Any], wrong: list[Any]) -> None:
    whole = schema()
    file = {"format": "template", "template": "nginx", "path": "x"}
    assert [value for value in right if not fits(whole, whole, {"files": [file | {key: value}]})] == []
    assert [value for value in wrong if fits(whole, whole, {"files": [file | {key: value}]})] == []


def test_the_example_fits_the_schema() -> None:
    whole = schema()
    assert fits(whole, whole, yaml.safe_load(EXAMPLE.read_text()))

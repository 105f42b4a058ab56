"""The JSON Schema of the config file, as `bearerd schema` prints it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from bearerd.config.keys import key_of
from bearerd.config.keys.key import Key

# Text that YAML reads as text without quotes, also within {…} and […], and that is no number, time or truth value.
_PLAIN: Final = re.compile(r"(?!(?:true|false|yes|no|on|off|null|[0-9.:+-]*)$)[A-Za-z0-9/][\w/.%@+:-]*", re.IGNORECASE)


class OneOrSeveral:
    """Annotates a list in whose place one item may be written: the schema allows both."""

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        several = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [several["items"], several]}


class _Generator(GenerateJsonSchema):
    """Leaves null out: a key may be left out, but a key without a value is an error."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # The models hold defaults as they are after parsing, and not those that come from another level.
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False  # the title is the kind of value, which its type names


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a file with this model."""
    shape = model.model_json_schema(schema_generator=_Generator)
    for name, mapping in ((model.__name__, shape), *shape["$defs"].items()):
        # Editors would show this instead of the description of a key whose value is the mapping.
        mapping.pop("description", None)
        if mapping["title"] == name:  # not a name for people
            del mapping["title"]
        for key, value in mapping.get("properties", {}).items():
            about = key_of(name, key)
            value["description"] = description(about)
            if about.default is not None:
                value["default"] = about.default
            if about.examples:
                value["examples"] = list(about.examples)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | shape


def description(about: Key) -> str:
    """What a key is for, and what happens without it: the text of editors, docs/config.md and bearerd.yaml(5)."""
    default = f"`{flow(about.default)}`" if about.default is not None else about.without
    return f"{about.text} Default: {default}." if default else about.text


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not value.endswith(":"):
        return value
    return json.dumps(value, ensure_ascii=False)

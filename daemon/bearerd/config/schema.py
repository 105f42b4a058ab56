"""The JSON Schema of the config file, as `bearerd schema` prints it. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from bearerd.config.descriptions import DESCRIPTIONS


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
        without = schema.get("default", ...) is None
        return self.generate_inner(schema["schema"]) if without else super().default_schema(schema)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a file with this model."""
    shape = model.model_json_schema(schema_generator=_Generator)
    for name, mapping in ((model.__name__, shape), *shape["$defs"].items()):
        for key, value in mapping.get("properties", {}).items():
            value["description"] = DESCRIPTIONS.get(f"{name}.{key}") or DESCRIPTIONS[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | shape

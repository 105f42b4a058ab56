"""Reads the YAML files of this package."""

from __future__ import annotations

import os
from typing import Any, Final

import yaml

from bearerd.providers.preset import Preset, Question, Secret

_DIRECTORY: Final = os.path.dirname(__file__)
_SUFFIX: Final = ".yaml"


def names() -> list[str]:
    """The names of all providers, sorted; the generic ones are last."""
    found = [entry.removesuffix(_SUFFIX) for entry in os.listdir(_DIRECTORY) if entry.endswith(_SUFFIX)]
    return sorted(found, key=lambda name: (name.startswith("other"), name))


def preset(name: str) -> Preset:
    """A provider by its name, which is one of `names`."""
    with open(os.path.join(_DIRECTORY, name + _SUFFIX), encoding="utf-8") as file:
        fields: dict[str, Any] = yaml.safe_load(file)
    questions = [
        Question(
            key,
            private=f"{{file: ${key}}}" in fields["config"],
            **(asked | {"choices": tuple(asked.get("choices", ()))}),
        )
        for key, asked in fields.pop("questions").items()
    ]
    secret = fields.pop("secret", None)
    return Preset(
        name=name,
        notes=fields.pop("notes", ""),
        questions=tuple(questions),
        secret=Secret(**secret) if secret else None,
        **fields,
    )

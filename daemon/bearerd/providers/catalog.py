"""Reads the YAML files of this package."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import yaml

from bearerd.providers.preset import Preset, Question, Secret

_DIRECTORY: Final = os.path.dirname(__file__)
_SUFFIX: Final = ".yaml"
# Words that people have for a provider, and the word that its files have.
_OTHER_NAMES: Final = dict.fromkeys(("azure", "azuread", "azure-ad", "aad"), "microsoft")


def names() -> list[str]:
    """The names of all providers, sorted; the generic ones are last."""
    found = [entry.removesuffix(_SUFFIX) for entry in os.listdir(_DIRECTORY) if entry.endswith(_SUFFIX)]
    return sorted(found, key=lambda name: (name.startswith("other"), name))


def about(word: str) -> list[str]:
    """The names of the providers whose title, notes or config have a word, such as `bisnode`, the name of a host."""
    word = _OTHER_NAMES.get(word.lower(), word.lower())
    return [
        name
        for name in names()
        for each in [preset(name)]
        if re.search(rf"\b{re.escape(word)}", f"{each.title}\n{each.notes}\n{each.config}", re.IGNORECASE)
    ]


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

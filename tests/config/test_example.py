"""config.example.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from bearerd.config import models
from support.config_text import Folder

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def uncommented(text: str) -> str:
    """The example with its commented keys (`#key`, without a space) enabled."""
    return re.sub(r"^( *)#(?=[a-z-])", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("change", [str, uncommented], ids=["as it is", "with all commented keys"])
def test_the_example_is_valid(folder: Folder, change: Callable[[str], str]) -> None:
    found = folder.load(change(EXAMPLE.read_text()))
    assert {"dnb/bci", "dnb/companies", "billing/api"} <= {target.full_name for target in found.targets}
    assert found.targets[0].client.provider.token_url == "https://login.bisnode.com/sandbox/v1/token.oauth2"


def keys(annotation: Any) -> Iterator[str]:
    """Every key of every model in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield name
            yield from keys(field.annotation)
    for argument in get_args(annotation):
        yield from keys(argument)


@pytest.mark.parametrize("key", sorted(set(keys(models.ConfigFile))))
def test_the_example_shows_every_key(key: str) -> None:
    assert re.search(rf"(?<!\w){key}:(\s|$)", EXAMPLE.read_text(), re.MULTILINE)

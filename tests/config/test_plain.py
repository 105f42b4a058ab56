"""Encoding a config for another process, and decoding it."""

from __future__ import annotations

import json
import pickle
from math import inf
from pathlib import Path

import pytest

from bearerd.config.load import load
from bearerd.config.plain import decode, encode
from bearerd.model import Client, Config, Provider, Target

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def shared(count: int) -> Config:
    client = Client("dnb", Provider("p", "https://h/t"), client_id="a")
    return Config("/d", "/s", targets=tuple(Target(client, f"t{number}", "s") for number in range(count)))


def test_the_example_is_the_same_after_encoding_and_decoding() -> None:
    config = load(str(EXAMPLE), {})
    assert decode(encode(config)) == config


def test_an_infinite_max_age_is_the_same_after_encoding_and_decoding() -> None:
    target = Target(Client("dnb", Provider("p", "https://h/t")), "bci", "bci", max_age=inf)
    config = Config("/d", "/s", targets=(target,))
    assert decode(encode(config)) == config


def test_shared_objects_are_encoded_once_and_shared_after_decoding() -> None:
    config = decode(encode(shared(100)))
    assert len({id(target.client) for target in config.targets}) == 1
    assert len(encode(shared(1000))) < 2 * len(encode(shared(500)))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no tables"),
        pytest.param(b'{"Config": [[]]}', id="too few fields"),
        pytest.param(b'{"Config": [["/d"]]}', id="one field"),
        pytest.param(pickle.dumps(shared(1)), id="a pickle"),
        pytest.param(encode(shared(1)).replace(b'"/d"', b"1"), id="a number for text"),
        pytest.param(encode(shared(1)).replace(b'"watch"', b'"never"'), id="a value that is not in the model"),
        pytest.param(encode(shared(1)).replace(b'"Client"', b'"os"'), id="an unknown table"),
        pytest.param(encode(Config("/d", "/s")).replace(b"[]", b"[0]"), id="a row that is not there"),
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a config|Expecting|Unterminated|decode|delimiter|0x80"):
        decode(content)


def test_negative_row_numbers_are_refused() -> None:
    tables = json.loads(encode(shared(1)))
    tables["Target"][0][0] = -1
    with pytest.raises(ValueError, match="no such row"):
        decode(json.dumps(tables).encode())

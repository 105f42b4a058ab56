"""Encoding a config for another process, and decoding it."""

from __future__ import annotations

import pickle
from dataclasses import replace
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


def test_equal_objects_of_the_present_config_are_used_again() -> None:
    present = shared(3)
    changed = replace(present.targets[1], strict_scope=True)
    config = replace(present, group="readers", targets=(present.targets[0], changed, present.targets[2]))
    decoded = decode(encode(config), present)
    assert decoded == config
    assert [one is two for one, two in zip(decoded.targets, present.targets, strict=True)] == [True, False, True]
    assert decoded.targets[1].client is present.targets[0].client


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no tables"),
        pytest.param(b"[{}]", id="no value"),
        pytest.param(b"[{}, {}]", id="no row"),
        pytest.param(b"[{}, []]", id="too few fields"),
        pytest.param(b'[{}, ["/d"]]', id="one field"),
        pytest.param(pickle.dumps(shared(1)), id="a pickle"),
        pytest.param(encode(shared(1)).replace(b'"/d"', b"1"), id="a number for text"),
        pytest.param(encode(shared(1)).replace(b'"watch"', b'"never"'), id="a value that is not in the model"),
        pytest.param(encode(shared(1)).replace(b'"Client"', b'"os"'), id="an unknown table"),
        pytest.param(encode(shared(2)).replace(b'[0, "t1"', b'[1, "t1"'), id="a row that is not there"),
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a config|Expecting|Unterminated|decode|delimiter|0x80"):
        decode(content)


def test_negative_row_numbers_are_refused() -> None:
    content = encode(shared(1))
    assert b'[0, "t0"' in content
    with pytest.raises(ValueError, match="no such row"):
        decode(content.replace(b'[0, "t0"', b'[-1, "t0"'))

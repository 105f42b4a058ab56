"""Sealed entries: who can open them, and what they show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.share.names import names_of
from bearerd.share.seal import LARGEST, NONCE, VERSION, Kind, associated_data, derive, seal, unseal
from support.targets import TARGET, target

KEY = derive("a secret of 32 characters or more")
NAMES = names_of(TARGET, "7e0c5a")
CONTENT = b'{"access_token": "opaque-1"}'
NONCES = bytes(NONCE)


def bound(**changes: object) -> bytes:
    parts: dict[str, object] = {
        "kind": "token", "names": NAMES, "identity": TARGET.identity(), "client_id": "7e0c5a", "fence": 7,
    }  # fmt: skip
    return associated_data(**(parts | changes))  # type: ignore[arg-type]  # a test's keywords


SEALED = seal(CONTENT, bound(), KEY, NONCES)


def test_the_key_opens_an_entry() -> None:
    assert unseal(SEALED, bound(), [derive("another secret, which is newer"), KEY]) == CONTENT


def test_an_entry_shows_nothing_of_its_content() -> None:
    assert b"opaque" not in SEALED
    assert len(SEALED) == 1 + NONCE + len(CONTENT) + 16


def test_the_keys_of_two_secrets_differ_and_are_not_the_secrets() -> None:
    keys = {derive(f"secret {number}") for number in range(10)}
    assert len(keys) == 10
    assert {len(key) for key in keys} == {32}


def test_another_key_opens_nothing() -> None:
    assert unseal(SEALED, bound(), [derive("another")]) is None
    assert unseal(SEALED, bound(), []) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "failure"},
        {"names": names_of(target(scope="other"), "7e0c5a")},
        {"identity": target(scope="other").identity()},
        {"client_id": "other"},
        {"fence": 8},
        {"identity": ""},
    ],
    ids=str,
)
def test_an_entry_opens_only_where_it_was_sealed_for(changes: dict[str, object]) -> None:
    assert unseal(SEALED, bound(**changes), [KEY]) is None


@given(st.integers(0, len(SEALED) * 8 - 1))
def test_an_entry_that_was_altered_by_one_bit_does_not_open(bit: int) -> None:
    altered = bytearray(SEALED)
    altered[bit // 8] ^= 1 << bit % 8
    assert unseal(bytes(altered), bound(), [KEY]) is None


@given(st.binary(max_size=100))
def test_any_bytes_may_be_stored(content: bytes) -> None:
    assert unseal(content, bound(), [KEY]) is None


def test_an_entry_of_another_version_is_not_opened() -> None:
    assert unseal(bytes([VERSION + 1]) + SEALED[1:], bound(), [KEY]) is None


def test_an_entry_that_is_too_large_is_not_opened() -> None:
    assert unseal(seal(bytes(LARGEST), bound(), KEY, NONCES), bound(), [KEY]) is None


@pytest.mark.parametrize("kind", ["token", "failure"])
def test_a_failure_of_the_client_is_bound_to_the_client(kind: Kind) -> None:
    other = names_of(target(scope="other"), "7e0c5a")
    assert associated_data(kind, NAMES, "", "7e0c5a") == associated_data(kind, replace(other), "", "7e0c5a")

"""Sealed entries: who can open them, and what they show."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.errors import ExtraMissing
from bearerd.share.keys import key_fault
from bearerd.share.names import names_of
from bearerd.share.seal import Kind, associated_data, derive, seal, unseal
from bearerd.share.types import Names
from bearerd.terms import REFUSED_LIMIT, Reference
from support.targets import target

NAMES = Names("6ab81869fd7951741e0d98217829f90c", "636a816a9bbaeed81564d8c2a7f237ae", REFUSED_LIMIT)
IDENTITY = "03cf80cd02f5adbc586792b76082a844d0f93ccee4bfc93396e8520ff6ac9509"
CONTENT = b'{"access_token": "opaque-1"}'
FAILURE = b'{"kind": "refused"}'
NONCE = bytes(range(12))
# Made once, by the first version.
KEY = bytes.fromhex("4517013c080ef8c12598c2419aa7bbd0b54e4b0dcfb16b57df429030134e1651")
SEALED = bytes.fromhex(
    "01000102030405060708090a0bc8a9c6cec99ce14f2e033298c6f216c5bad79b2e6364729afedfadbe78d2fd97df98db60803936262f3fd365"
)
SEALED_FAILURE = bytes.fromhex(
    "01000102030405060708090a0bc8a9ccc4c49db00651552f96c5e9479afed789afc9efa1a7b3d0e313f0e2a4bc472e8f"
)


def bound(**changes: object) -> bytes:
    parts: dict[str, object] = {
        "kind": "token", "names": NAMES, "identity": IDENTITY, "client_id": "7e0c5a", "fence": 7,
    }  # fmt: skip
    return associated_data(**(parts | changes))  # type: ignore[arg-type]  # a test's keywords


def test_the_key_opens_an_entry() -> None:
    keys = [derive("another secret, which is newer"), KEY]
    assert unseal(SEALED, bound(), keys) == CONTENT
    assert unseal(seal(CONTENT, bound(), KEY, bytes(12)), bound(), keys) == CONTENT


def test_sealed_entries_are_the_same_in_each_version() -> None:
    """Otherwise a fleet would split in two while it is upgraded."""
    assert derive("a secret of 32 characters or more") == KEY
    assert seal(CONTENT, bound(), KEY, NONCE) == SEALED
    of_client = associated_data("failure", NAMES, "", "7e0c5a")
    assert seal(FAILURE, of_client, KEY, NONCE) == SEALED_FAILURE
    assert unseal(SEALED_FAILURE, of_client, [KEY]) == FAILURE


def test_an_entry_shows_nothing_of_its_content() -> None:
    sealed = seal(CONTENT, bound(), KEY, NONCE)
    assert b"opaque" not in sealed
    assert len(sealed) == 1 + 12 + len(CONTENT) + 16


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
    assert unseal(SEALED[:1] + content, bound(), [KEY]) is None


def test_an_entry_of_another_version_is_not_opened() -> None:
    assert unseal(b"\2" + SEALED[1:], bound(), [KEY]) is None


def test_a_daemon_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hashes", None)
    with pytest.raises(ExtraMissing, match=r"^share needs .*/bin/pip install '\.\[redis\]' in the checkout$"):
        derive("a secret")


@pytest.mark.parametrize(
    ("length", "of_client", "enough"), [(15, True, False), (16, True, True), (31, False, False), (32, False, True)]
)
def test_a_key_has_at_least_32_bytes_and_a_client_secret_in_its_place_16(
    length: int, of_client: bool, enough: bool
) -> None:
    fault = key_fault(Reference("file", "/key"), "ü" * (length // 2) + "a" * (length % 2), of_client=of_client)
    assert (fault is None) == enough
    if fault is not None:
        assert f"shorter than {16 if of_client else 32} bytes" in fault
        assert ("set key of share" in fault) == of_client


@pytest.mark.parametrize("kind", ["token", "failure"])
def test_a_failure_of_the_client_is_bound_to_the_client(kind: Kind) -> None:
    other = names_of(target(scope="other"), "7e0c5a")
    ours = Names("another", other.client, REFUSED_LIMIT)
    assert associated_data(kind, ours, "", "7e0c5a") == associated_data(kind, other, "", "7e0c5a")

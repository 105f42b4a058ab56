"""The keys of a client: read once, and again when they may have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bearerd.errors import SecretUnavailable
from bearerd.model import Client
from bearerd.share.key_cache import KeyCache
from bearerd.share.seal import derive
from bearerd.terms import Reference
from support.clock import FakeClock
from support.fleet import SHARE
from support.targets import CLIENT

OLD, NEW = "the old secret of the client, 1", "the new secret of the client, 2"
SHARING = replace(CLIENT, share=SHARE, client_secret=(Reference("env", "ONE"),))
SEVERAL = replace(SHARING, client_secret=(Reference("env", "ONE"), Reference("env", "TWO")))
KEYED = replace(SHARING, share=replace(SHARE, key=Reference("env", "KEY")))


@pytest.fixture
def environ() -> dict[str, str]:
    return {"ONE": OLD}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(environ: dict[str, str], clock: FakeClock) -> KeyCache:
    return KeyCache(environ, lambda: clock.boot)


def refreshed(cache: KeyCache, client: Client) -> tuple[bytes, ...]:
    cache.refresh(client)
    return cache.keys(client)


@pytest.mark.parametrize(
    ("read", "again"),
    [(KeyCache.keys, None), (refreshed, 60.0), (KeyCache.renewed, 5.0)],
    ids=["keys", "claim", "failure"],
)
def test_keys_are_read_again_after_a_minute_for_a_claim_and_5_s_for_an_entry_that_does_not_open(
    cache: KeyCache,
    environ: dict[str, str],
    clock: FakeClock,
    read: Callable[[KeyCache, Client], tuple[bytes, ...]],
    again: float | None,
) -> None:
    assert read(cache, SHARING) == (derive(OLD),)
    environ["ONE"] = NEW
    clock.advance(1e6 if again is None else again - 0.1)
    assert read(cache, SHARING) == (derive(OLD),)
    clock.advance(0.1)
    assert read(cache, SHARING) == (derive(OLD if again is None else NEW),)


def test_keys_that_may_have_changed_are_read_again_at_once(cache: KeyCache, environ: dict[str, str]) -> None:
    cache.keys(SHARING)
    environ["ONE"] = NEW
    cache.forget("other")
    assert cache.keys(SHARING) == (derive(OLD),)
    cache.forget(SHARING.name)
    assert cache.keys(SHARING) == (derive(NEW),)


@pytest.mark.parametrize("changed", [replace(SHARING, client_secret=(Reference("env", "TWO"),)), KEYED])
def test_the_keys_of_another_config_are_not_used(cache: KeyCache, environ: dict[str, str], changed: Client) -> None:
    environ["TWO"] = environ["KEY"] = NEW * 2
    for client, key in ((SHARING, OLD), (changed, NEW * 2), (SHARING, OLD)):
        assert cache.keys(client) == (derive(key),)
        assert refreshed(cache, client) == cache.renewed(client) == (derive(key),)
    # Not even while its own cannot be read.
    del environ["TWO"], environ["KEY"]
    with pytest.raises(SecretUnavailable):
        cache.keys(changed)


def test_the_known_keys_stay_while_the_secret_cannot_be_read(
    cache: KeyCache, environ: dict[str, str], clock: FakeClock
) -> None:
    assert cache.renewed(SHARING) == (derive(OLD),)
    del environ["ONE"]
    clock.advance(5.0)
    assert cache.renewed(SHARING) == (derive(OLD),)
    environ["ONE"] = NEW
    clock.advance(4.9)
    assert cache.renewed(SHARING) == (derive(OLD),)  # it is not read for each entry
    clock.advance(0.1)
    assert cache.renewed(SHARING) == (derive(NEW),)


@pytest.mark.parametrize(
    ("secrets", "keys"),
    [
        ({"ONE": NEW, "TWO": OLD}, [NEW, OLD]),
        ({"TWO": OLD}, [OLD]),
        ({"ONE": "short", "TWO": OLD}, [OLD]),
        ({"ONE": NEW, "TWO": "short"}, [NEW]),
    ],
)
def test_each_secret_that_can_be_used_is_a_key_in_the_order_of_the_config(
    cache: KeyCache, environ: dict[str, str], secrets: dict[str, str], keys: list[str]
) -> None:
    del environ["ONE"]
    environ |= secrets
    assert cache.keys(SEVERAL) == tuple(derive(key) for key in keys)


@pytest.mark.parametrize(("secrets", "error"), [
    ({}, "ONE"), ({"TWO": "short"}, "ONE"), ({"ONE": "short"}, "ONE: shorter than 16 bytes"),
])  # fmt: skip
def test_the_error_names_the_first_secret_that_cannot_be_used(
    cache: KeyCache, environ: dict[str, str], secrets: dict[str, str], error: str
) -> None:
    del environ["ONE"]
    environ |= secrets
    for method in (cache.keys, cache.refresh, cache.renewed):
        with pytest.raises(SecretUnavailable, match=error):
            method(SEVERAL)


def test_the_key_of_the_share_takes_the_place_of_the_secrets(cache: KeyCache, environ: dict[str, str]) -> None:
    assert cache.keys(replace(SHARING, name="other", share=None)) == (derive(OLD),)
    with pytest.raises(SecretUnavailable, match="KEY"):
        cache.keys(KEYED)
    environ["KEY"] = NEW
    with pytest.raises(SecretUnavailable, match="shorter than 32 bytes"):
        cache.keys(KEYED)
    environ["KEY"] = NEW * 2
    assert cache.keys(KEYED) == (derive(NEW * 2),)


def test_a_client_without_a_secret_needs_a_key(cache: KeyCache) -> None:
    with pytest.raises(SecretUnavailable, match=r"set share\.key$"):
        cache.keys(replace(SHARING, client_secret=()))

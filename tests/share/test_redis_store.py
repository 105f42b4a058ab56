"""The scripts on real servers, compared with the model, and everything with the ACL of the documentation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

import bearerd.share
from bearerd.share.redis_store import ACL, RedisStore
from bearerd.share.types import NEVER, Busy, Claim, Failing, Granted, Limited, Names, ShareUnavailable, Store, Stored
from bearerd.terms import RateLimit, Redis, Reference
from support.process import WITHIN
from support.redis_server import ON_EACH, RedisServer, redis_server
from support.share_model import ModelStore

LONG = 600.0
"""Seconds: longer than a test."""
REFUSED = RateLimit(4, LONG)
NAMES = Names("target", "client", REFUSED)
OTHER = Names("other", "client", REFUSED)
ENVIRON = {"PASSWORD": "secret"}


@pytest.fixture(scope="module", params=ON_EACH)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_server(binary=request.param, acl=[f"user bearerd on >secret ~bearerd:* &bearerd:* {ACL}"]) as running:
        yield running


def share(server: RedisServer) -> Redis:
    return Redis(server.url, server.ca_file, "bearerd", Reference("env", "PASSWORD"), timeout=WITHIN / 2)


class Clocked(RedisStore):
    """Notes the server's time of the last reply."""

    now = 0.0

    def _evaluated(
        self, script: str, keys: tuple[str, ...], arguments: tuple[str | bytes | int, ...], read: Callable[[Any], Any]
    ) -> Any:
        def noting(reply: Any) -> Any:
            self.now = int(reply[0]) / 1e6
            return read(reply)

        return super()._evaluated(script, keys, arguments, noting)


@pytest.fixture
def store(server: RedisServer) -> Iterator[Clocked]:
    server.ask("FLUSHALL")
    store = Clocked(share(server), ENVIRON)
    store.connect()
    yield store
    store.disconnect()


# -- the same answers as the model ------------------------------------------------------------------

TARGETS = [
    Names("token-a", "client", REFUSED, (("rate", RateLimit(3, LONG)),)),
    Names("token-b", "client", RateLimit(2, LONG), (("rate", RateLimit(3, LONG)),)),
    Names("token-c", "other", RateLimit(3, 0.02), (("fast", RateLimit(2, 0.01)), ("rate", RateLimit(9, LONG)))),
]
HALF = 0.5e-6
"""The model counts in floats, the server in microseconds. Half of one less, and nothing ends at a moment that differs."""


@dataclass(frozen=True)
class Step:
    """One operation with its arguments. Fences are chosen among those that were granted, the newest first."""

    what: str
    target: Names
    fence: int = 0
    seconds: float = LONG
    claim: Claim = Claim()
    have: int = 0
    seen: int = 0
    flags: tuple[bool, bool] = (False, False)
    sealed: bytes = b"sealed"


SECONDS = st.sampled_from([0.002, 0.01, LONG, LONG])
STEPS = st.lists(
    st.builds(
        Step,
        # A claim is what most depends on the rest.
        what=st.sampled_from(
            ["claim", "claim", "claim", "store", "store", "keep", "fail", "fail", "give_back", "flush"]
        ),
        target=st.sampled_from(TARGETS),
        fence=st.integers(0, 3),
        seconds=SECONDS,
        claim=st.builds(Claim, lease=SECONDS, last=st.booleans(), changed=st.sampled_from([None, None, 0.002, LONG])),
        have=st.integers(0, 3),
        seen=st.integers(0, 3),
        flags=st.tuples(st.booleans(), st.booleans()),
        sealed=st.binary(min_size=1, max_size=20),
    ),
    max_size=40,
)


def did(step: Step, store: Store, fences: list[int], less: float) -> Any:
    """The answer to one step; durations are shorter by `less`."""
    limits = tuple((name, replace(limit, window=limit.window - less)) for name, limit in step.target.rates)
    refused = replace(step.target.refused_limit, window=step.target.refused_limit.window - less)
    names = replace(step.target, refused_limit=refused, rates=limits)
    fence = fences[-1 - step.fence % len(fences)]
    match step.what:
        case "claim":
            changed = None if step.claim.changed is None else step.claim.changed - less
            return store.claim(
                names,
                replace(
                    step.claim,
                    have=fences[-step.have % len(fences)] if step.have else NEVER,
                    seen=fences[-step.seen % len(fences)] if step.seen else NEVER,
                    lease=step.claim.lease - less,
                    changed=changed,
                ),
            )
        case "store":
            return store.store(names, fence, step.sealed, step.seconds - less)
        case "keep":
            return store.keep(names, fence, step.seconds - less)  # type: ignore[func-returns-value]
        case "fail":
            whole_client, refused_it = step.flags
            return store.fail(  # type: ignore[func-returns-value]
                names, fence, step.sealed, step.seconds - less, whole_client=whole_client, refused=refused_it
            )
        case _:
            return store.give_back(names, fence)  # type: ignore[func-returns-value]


def same(real: Any, model: Any) -> Any:
    """The answer of the server with the model's times, if they are equal up to microseconds."""
    if isinstance(real, Busy | Limited | Failing) and isinstance(model, Busy | Limited | Failing):
        assert real.wait == pytest.approx(model.wait, abs=3e-6)
        return replace(real, wait=model.wait)
    if isinstance(real, Granted | Stored) and isinstance(model, Granted | Stored):
        assert real.clock == pytest.approx(model.clock, abs=1e-6)
        return replace(real, clock=model.clock)
    return real


@settings(max_examples=150)
@given(steps=STEPS)
def test_the_server_answers_and_announces_as_the_model_does(server: RedisServer, steps: list[Step]) -> None:
    server.ask("FLUSHALL")
    store, announced = Clocked(share(server), ENVIRON), list[tuple[str, str]]()
    store.connect()
    subscription = store.subscribe()
    model = ModelStore(lambda: store.now, lambda names: announced.append((names.token, names.client)))
    fences = [1, 2**51]  # one is far in the past, and one in the future
    try:
        for step in steps:
            if step.what == "flush":
                server.ask("FLUSHALL")
                model.flush()
                continue
            real = did(step, store, fences, 0.0)
            expected = did(step, model, fences, HALF)
            assert same(real, expected) == expected, step
            if isinstance(real, Granted):
                fences.append(real.fence)
            for target in TARGETS:
                stored = store.read(target)
                expected = model.read(target)
                assert same(stored, expected) == expected
            tokens = tuple(target.token for target in TARGETS)
            assert store.fences(tokens) == model.fences(tokens)
        for each in announced:
            assert subscription.hear(time.monotonic() + WITHIN) == each
        assert all(int(server.ask("PTTL", key)) != -1 for key in server.ask("KEYS", "*"))
    finally:
        subscription.close()
        store.disconnect()

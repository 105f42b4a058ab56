"""One client and its provider: the constraints of a request, and which limit holds it."""

from __future__ import annotations

from math import inf

import pytest

from bearerd.admission.parts import Client, Terms
from bearerd.admission.rate import Kind
from bearerd.admission.types import Granted, Held
from bearerd.terms import RateLimit
from support.admission import ISSUED, OWN, REFUSED, World, ask, limits

NOW = 1000.0
TEN = {"p": RateLimit(10, 60.0)}
PLAIN = Terms(own=False, last_attempt=False, retry=False, kind="first")


def world(clients: str = "c", rates: dict[str, RateLimit] | None = None) -> World:
    """A world whose clients just got a token."""
    w = World(limits(clients, rates=rates))
    for client in clients:
        w.core.registry.clients[client].breaker.got_token("", w.now - 10.0, w.now)
    return w


def the_client(w: World) -> Client:
    return w.core.registry.clients["c"]


@pytest.mark.parametrize("clients", ["c", "cd"], ids=["its-own-limit", "a-shared-limit"])
@pytest.mark.parametrize(
    ("expires", "requested", "kind"),
    [
        (None, False, "first"),
        (None, True, "first"),
        (NOW - 1.0, False, "renewal"),
        (NOW + 60.0, False, "renewal"),
        (NOW + 60.0, True, "requested"),
        (NOW, True, "renewal"),
    ],
)
def test_a_rate_limit_distinguishes_first_tokens_renewals_and_requested_ones(
    clients: str, expires: float | None, requested: bool, kind: Kind
) -> None:
    client = the_client(world(clients, TEN))
    assert client.terms(ask(expires=expires, requested=requested), NOW) == PLAIN._replace(kind=kind)


def test_without_a_rate_limit_all_requests_are_alike() -> None:
    assert the_client(world()).terms(ask(expires=NOW + 60.0, requested=True), NOW) == PLAIN


@pytest.mark.parametrize(("last", "retry"), [(False, True), (True, False)])
def test_a_last_attempt_is_no_retry(last: bool, retry: bool) -> None:
    found = the_client(world()).terms(ask(retry=True, last_attempt=last), NOW)
    assert (found.retry, found.last_attempt) == (retry, last)


@pytest.mark.parametrize("clients", ["c", "cd"], ids=["its-own-limit", "a-shared-limit"])
def test_requested_renewals_may_use_half_of_a_limit_and_due_ones_all_of_it(clients: str) -> None:
    w = world(clients, {"p": RateLimit(2, 60.0)})
    w.turn("c/a", expires=w.now + 600.0, requested=True)
    w.settle("c/a", ISSUED)
    answer = w.turn("c/b", expires=w.now + 600.0, requested=True)
    assert isinstance(answer, Held)
    assert (answer.until, answer.reason) == (w.now + 60.0, "rate_limit")
    assert isinstance(w.turn("c/d", expires=w.now + 600.0), Granted)


@pytest.mark.parametrize("clients", ["c", "cd"], ids=["its-own-limit", "a-shared-limit"])
def test_renewals_are_spaced_and_first_tokens_are_not(clients: str) -> None:
    w = world(clients, {"p": RateLimit(4, 3600.0)})
    token = {"lifetime": 600.0, "period": 480.0, "expires": w.now + 10.0}
    assert isinstance(w.turn("c/a", **token), Granted)
    w.settle("c/a", ISSUED)
    answer = w.turn("c/b", **token)
    assert isinstance(answer, Held)
    assert (answer.until, answer.reason) == (w.now + 900.0, "rate_limit")
    assert isinstance(w.turn("c/d"), Granted)


def test_a_less_urgent_target_that_requests_first_does_not_pass_one_that_waits() -> None:
    w = world("cd", {"p": RateLimit(1, 60.0)})
    w.turn("d/a")
    w.settle("d/a", ISSUED)
    assert isinstance(w.turn("c/urgent"), Held)
    w.now += 60.0
    assert isinstance(w.turn("d/later", failures=3), Held)
    assert isinstance(w.turn("c/urgent"), Granted)


def test_a_target_that_is_refused_on_its_own_waits_for_its_client_too() -> None:
    w = world()
    client, terms = the_client(w), PLAIN._replace(own=True)
    client.breaker.refused_target("c/own", OWN, NOW)
    assert client.earliest(terms, "c/own", NOW)[0] == NOW
    client.breaker.in_flight = 100  # it does not probe its client
    assert client.earliest(terms, "c/own", NOW)[0] == NOW
    client.breaker.refused_client("c/a", REFUSED, NOW, NOW, governed=True)
    assert client.earliest(terms, "c/own", NOW) == (inf, "refused")
    assert client.earliest(terms._replace(last_attempt=True), "c/own", NOW)[0] == NOW


def test_of_two_limits_the_later_one_holds() -> None:
    w = world()
    client = the_client(w)
    client.breaker.refused_client("c/a", REFUSED, NOW, NOW, governed=True)
    assert client.earliest(PLAIN, "c/a", NOW) == (NOW + 30.0, "refused")
    for _ in range(3):
        client.ledger.refused(NOW, governed=False)
    assert client.earliest(PLAIN, "c/a", NOW) == (NOW + 120.0, "refused_limit")
    client.in_flight = 8
    assert client.earliest(PLAIN, "c/a", NOW) == (inf, "concurrency")

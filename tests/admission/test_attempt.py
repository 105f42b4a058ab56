"""What an attempt counts against, and what is given back."""

from __future__ import annotations

import pytest

from bearerd.admission.attempt import Attempt, finish, start, withdraw
from bearerd.admission.parts import Client, Terms
from bearerd.terms import RateLimit
from support.admission import PROVIDER, World, ask, limits

NOW = 1000.0
PLAIN = Terms(own=False, last_attempt=False, retry=False, kind="first")


@pytest.fixture
def client() -> Client:
    """A client with a limit that it shares."""
    w = World(limits("cd", rates={"p": RateLimit(10, 60.0)}))
    return w.core.registry.clients["c"]


def begun(client: Client, terms: Terms = PLAIN) -> Attempt:
    return start(1, client, terms, ask(), NOW)


def in_flight(client: Client) -> tuple[int, int, int, int]:
    """Attempts in flight of the provider, the client, its breaker and its ledger."""
    return client.provider.in_flight, client.in_flight, client.breaker.in_flight, client.ledger.in_flight


@pytest.mark.parametrize(
    ("terms", "counted"), [(PLAIN, (1, 1, 1, 1)), (PLAIN._replace(own=True), (1, 1, 0, 1))], ids=["plain", "own"]
)
def test_an_attempt_that_was_not_sent_gives_everything_back(
    client: Client, terms: Terms, counted: tuple[int, int, int, int]
) -> None:
    attempt = begun(client, terms)
    (rate,) = client.shared
    assert in_flight(client) == counted
    assert rate.in_flight == 1
    assert client.provider.name == PROVIDER
    withdraw(attempt, NOW)
    assert in_flight(client) == (0, 0, 0, 0)
    assert rate.in_flight == 0


def test_an_attempt_of_a_closed_client_does_not_count_against_its_ledger(client: Client) -> None:
    client.breaker.got_token("c/a", NOW, NOW)
    attempt = begun(client)
    assert in_flight(client) == (1, 1, 1, 0)
    withdraw(attempt, NOW)
    assert in_flight(client) == (0, 0, 0, 0)


def test_only_a_retry_uses_the_retry_budget_and_gives_it_back(client: Client) -> None:
    retry = client.provider.retry
    for _ in range(5):
        retry.take(NOW)
    withdraw(begun(client), NOW)
    assert retry.left(NOW) == 5.0
    attempt = begun(client, PLAIN._replace(retry=True))
    assert retry.left(NOW) == 4.0
    withdraw(attempt, NOW)
    assert retry.left(NOW) == 5.0


def test_the_reserved_attempt_is_given_back_with_the_attempt_that_used_it(client: Client) -> None:
    for _ in range(3):
        client.ledger.refused(NOW, governed=False)
    client.ledger.changed = True
    attempt = begun(client)
    assert (attempt.kept, client.ledger.changed) == (True, False)
    withdraw(attempt, NOW)
    assert client.ledger.changed


def test_an_attempt_with_former_credentials_is_not_one_of_the_present_ones(client: Client) -> None:
    former = begun(client)
    client.breaker.forgive()
    assert not finish(former)
    assert in_flight(client)[:3] == (0, 0, 0)
    own = begun(client, PLAIN._replace(own=True))
    present = begun(client)
    assert finish(own)
    assert in_flight(client)[:3] == (1, 1, 1)
    assert finish(present)
    assert in_flight(client)[:3] == (0, 0, 0)


@pytest.mark.parametrize(("closed", "rates", "recorded"), [
    (True, {}, False), (True, {"p": RateLimit(9, 9.0)}, True), (False, {}, True),
])  # fmt: skip
def test_an_attempt_is_recorded_if_a_limit_counts_it(closed: bool, rates: dict[str, RateLimit], recorded: bool) -> None:
    client = World(limits("c", rates=rates)).core.registry.clients["c"]
    if closed:
        client.breaker.got_token("c/a", NOW, NOW)
    assert begun(client).recorded == recorded

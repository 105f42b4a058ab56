"""Clients, providers and rate limits as the config changes: what is kept, what is dropped, what is restored."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import pytest

from bearerd.admission.ledger import Past
from bearerd.admission.parts import Client, Provider, Terms
from bearerd.admission.registry import Registry
from bearerd.admission.types import ClientLimits, Limits
from bearerd.terms import MOST_REFUSED, REFUSED_LIMIT, RateLimit
from support.admission import REFUSED

NOW = 1000.0
ONE, OTHER = "https://one.example.com/token", "https://other.example.com/token"
LIMIT, LARGER = RateLimit(10, 60.0), RateLimit(20, 60.0)
A_DAY = MOST_REFUSED.window


def client(*rates: str, provider: str = ONE, max_concurrency: int = 8) -> ClientLimits:
    return ClientLimits(provider, max_concurrency, REFUSED_LIMIT, rates, 40.0)


def limits(clients: Mapping[str, ClientLimits], **rates: RateLimit) -> Limits:
    return Limits(clients, rates)


def registry(clients: Mapping[str, ClientLimits], past: Past | None = None, **rates: RateLimit) -> Registry:
    return Registry(limits(clients, **rates), past or Past(), NOW)


def names(clients: list[Client]) -> list[str]:
    return [each.name for each in clients]


# -- a changed config ------------------------------------------------------------------------------


def test_a_limit_that_clients_share_is_that_of_each() -> None:
    found = registry({"a": client("p", "own"), "b": client("p", provider=OTHER), "c": client()}, p=LIMIT, own=LARGER)
    a, b, c = found.clients.values()
    (shared,), (own,) = a.shared, a.rates
    assert (shared.limit, own.limit) == (LIMIT, LARGER)
    assert (b.shared, b.rates, c.shared, c.rates) == ((shared,), (), (), ())
    assert [each.name for each in found.users(shared)] == [ONE, OTHER]
    assert found.users(own) == []


def test_the_providers_that_share_a_limit_are_in_order() -> None:
    found = registry({"a": client("p", provider=OTHER), "b": client("p"), "c": client("p")}, p=LIMIT)
    assert [each.name for each in found.users(found.clients["a"].shared[0])] == [ONE, OTHER]


def test_a_provider_has_the_most_slots_that_one_of_its_clients_has() -> None:
    found = registry({"a": client(max_concurrency=2), "b": client(max_concurrency=5), "c": client(max_concurrency=3)})
    assert found.providers[ONE].max_concurrency == 5
    found.revise(limits({"a": client(max_concurrency=2)}))
    assert found.providers[ONE].max_concurrency == 2
    found.revise(limits({"a": client(provider=OTHER)}))
    assert found.providers[ONE].max_concurrency == 0


@pytest.mark.parametrize(
    ("changed", "given", "rates"),
    [
        ([], {"a": client("p"), "b": client("q", "s"), "c": client("s")}, {}),
        (["a"], {"a": client("p", provider=OTHER), "b": client("q", "s"), "c": client("s")}, {}),
        (["a"], {"a": client("p"), "b": client("q", "s"), "c": client("s")}, {"p": LARGER}),
        (["b", "c"], {"a": client("p"), "b": client("q", "s"), "c": client("s")}, {"s": LARGER}),
        (["a"], {"a": client(), "b": client("q", "s"), "c": client("s")}, {}),
        (["b"], {"a": client("p"), "b": client("q", "s")}, {}),
        ([], {"a": client("p", max_concurrency=1), "b": client("q", "s"), "c": client("s")}, {}),
    ],
    ids=["nothing", "provider", "limit", "shared-limit", "without-a-limit", "no-longer-shared", "slots"],
)
def test_clients_whose_constraints_changed_are_named(
    changed: list[str], given: dict[str, ClientLimits], rates: dict[str, RateLimit]
) -> None:
    former = {"p": LIMIT, "q": LIMIT, "s": LIMIT}
    found = registry({"a": client("p"), "b": client("q", "s"), "c": client("s")}, None, **former)
    before = dict(found.clients)
    assert names(found.revise(limits(given, **(former | rates)))[0]) == changed
    assert found.clients == {name: before[name] for name in given}
    assert {name: each.limits for name, each in found.clients.items()} == given


def test_a_changed_limit_still_counts_what_was_sent() -> None:
    found = registry({"a": client("p")}, p=LIMIT)
    (rate,) = found.clients["a"].rates
    rate.send(NOW)
    found.revise(limits({"a": client("p")}, p=LARGER))
    assert found.clients["a"].rates == (rate,)
    assert (rate.limit, rate.in_flight) == (LARGER, 1)


def test_removed_clients_are_named_and_come_back_as_they_were() -> None:
    found = registry({"a": client(), "b": client()})
    a, b = found.clients.values()
    assert found.revise(limits({"b": client()})) == ([], [a])
    assert (found.find("a"), found.find("b"), found.find("c")) == (a, b, None)
    assert names([*found.clients.values()]) == ["b"]
    assert found.revise(limits({"a": client(), "b": client()})) == ([], [])
    assert found.clients == {"a": a, "b": b}
    found.prune(NOW)
    assert found.find("a") is a


def test_a_removed_limit_comes_back_as_it_was() -> None:
    found = registry({"a": client("p")}, p=LIMIT)
    (rate,) = found.clients["a"].rates
    rate.send(NOW)
    assert names(found.revise(limits({"a": client()}))[0]) == ["a"]
    found.prune(NOW)
    assert names(found.revise(limits({"a": client("p")}, p=LARGER))[0]) == ["a"]
    assert found.clients["a"].rates == (rate,)
    assert rate.limit == LARGER


# -- what is dropped -------------------------------------------------------------------------------


def test_a_removed_client_is_kept_while_its_attempts_count() -> None:
    found = registry({"a": client(), "b": client()})
    a = found.clients["a"]
    a.in_flight = 1
    found.revise(limits({"b": client()}))
    found.prune(NOW)
    assert found.find("a") is a
    a.in_flight = 0
    a.ledger.refused(NOW, governed=False)
    found.prune(NOW + A_DAY - 0.1)
    assert found.find("a") is a
    found.prune(NOW + A_DAY)
    assert found.find("a") is None


def test_a_removed_limit_is_kept_while_its_attempts_count() -> None:
    found = registry({"a": client("p")}, p=LIMIT)
    (rate,) = found.clients["a"].rates
    rate.send(NOW)
    rate.replied(NOW)
    found.revise(limits({"a": client()}))
    found.prune(NOW + 59.9)
    assert [entry for _, entry in found.entries(NOW + 59.9)] == [["spent", "p"]]
    found.prune(NOW + 60.0)
    found.revise(limits({"a": client("p")}, p=LIMIT))
    assert found.clients["a"].rates != (rate,)


def test_an_unused_provider_is_kept_while_its_attempts_are_in_flight() -> None:
    found = registry({"a": client(), "b": client(provider=OTHER)})
    provider = found.providers[OTHER]
    provider.in_flight = 1
    found.revise(limits({"a": client(), "b": client()}))
    found.prune(NOW)
    assert found.providers.keys() == {ONE, OTHER}
    provider.in_flight = 0
    found.prune(NOW)
    assert found.providers.keys() == {ONE}


def queue_of(found: Registry, name: str) -> Provider:
    """Let a queue of the client exist."""
    each = found.clients[name]
    each.queue(Terms(own=False, last_attempt=False, retry=False, kind="first"))
    return each.provider


def test_queues_that_no_client_uses_are_dropped() -> None:
    found = registry({"a": client(), "b": client("p"), "c": client("p")}, p=LIMIT)
    provider = queue_of(found, "a")
    queue_of(found, "b")
    assert len(provider.queues) == 2
    found.clients["a"].queues.clear()
    found.prune(NOW)
    (left,) = provider.queues.values()
    assert left.rates == found.clients["b"].shared


# -- over restarts ---------------------------------------------------------------------------------


def test_a_restart_needs_refusals_and_used_limits_also_of_what_was_removed() -> None:
    found = registry({"a": client("p"), "b": client("q")}, p=LIMIT, q=LIMIT)
    for name in "ab":
        found.clients[name].ledger.refused(NOW - 5.0, governed=False)
        (used,) = found.clients[name].rates
        used.send(NOW - 4.0)
        used.replied(NOW - 3.0)
    found.clients["a"].breaker.fleet_refused("a/t", REFUSED, 2, 30.0, NOW)
    found.revise(limits({"b": client("q")}, q=LIMIT))
    refusal = [False, 2, 30.0, 30.0, [REFUSED.message, None, ""]]
    assert list(found.entries(NOW)) == [
        (5.0, ["refused", "b"]),
        (5.0, ["refused", "a"]),
        (0.0, ["client", "a", refusal]),
        (3.0, ["spent", "q"]),
        (3.0, ["spent", "p"]),
    ]


def test_the_state_of_an_earlier_process_is_restored() -> None:
    past = Past()
    past.refused["a"] += [5.0]
    past.spent["p"] += [4.0]
    past.clients["a"] = (10.0, [True, 2, 30.0, 30.0, ["401", None, ""]])
    past.targets["a", "a/t"] = (10.0, [True, 1, 0.0, 60.0, ["400", None, ""]])
    found = registry({"a": client("p"), "b": client()}, past, p=LIMIT)
    a, b = found.clients.values()
    assert list(a.ledger.ages(NOW)) == [5.0]
    assert list(a.rates[0].ages(NOW)) == [4.0]
    assert (a.breaker.refusals, a.breaker.probe_at) == (2, NOW + 20.0)
    assert a.breaker.own["a/t"].next_at == NOW + 50.0
    assert (b.breaker.refusals, b.breaker.own, list(b.ledger.ages(NOW))) == (0, {}, [])


NO_ENTRY = ["401", None, ""]


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        [1],
        [True, "x", 0.0, 0.0, NO_ENTRY],
        [True, None, 0.0, 0.0, NO_ENTRY],
        [True, inf, 0.0, 0.0, NO_ENTRY],
    ],
)
def test_what_the_journal_cannot_say_is_passed_over(fields: list[object] | None) -> None:
    past = Past()
    past.clients |= {"a": (10.0, fields), "b": (10.0, [True, 2, 30.0, 30.0, ["401", None, ""]]), "gone": (1.0, fields)}
    past.targets["a", "a/t"] = (10.0, fields)
    past.targets["gone", "gone/t"] = (10.0, [True, 1, 0.0, 60.0, ["400", None, ""]])
    past.targets["b", "b/t"] = (10.0, [True, 1, 0.0, 60.0, ["400", None, ""]])
    found = registry({"a": client(), "b": client()}, past)
    a, b = found.clients.values()
    assert (a.breaker.refusals, a.breaker.own, b.breaker.refusals, list(b.breaker.own)) == (0, {}, 2, ["b/t"])

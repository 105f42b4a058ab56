"""What outcomes and changes from outside do to admission: counts, refusals, wakes and entries of the journal."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from bearerd.admission.core import FALLBACK
from bearerd.admission.types import Granted, Held, Limits, Refusal, Settled, Wake
from bearerd.admission.view import view
from bearerd.grant.outcome import Outcome, Refused
from bearerd.terms import RateLimit
from support.admission import ISSUED, NO_ROUTE, OWN, PROVIDER, REFUSED, SILENCE, TOO_MANY, World, ask, limits

FULL = Refused("401 invalid_client", request="f00d")


def world(clients: str = "c", **changes: object) -> World:
    """A world whose clients just got a token."""
    w = World(limits(clients, **changes))  # type: ignore[arg-type]  # a test's keywords
    for client in clients:
        w.core.registry.clients[client].breaker.got_token("", w.now - 10.0, w.now)
    return w


def send(w: World, name: str, outcome: Outcome | None) -> float:
    assert isinstance(w.turn(name), Granted)
    return w.settle(name, outcome)


# -- requests --------------------------------------------------------------------------------------


def test_a_client_that_is_not_known_holds_its_targets_until_an_event() -> None:
    w = world()
    answer = Held(inf, "unknown_client", w.now + FALLBACK)
    assert w.core.preview(ask("x/a"), w.now) == answer
    assert w.turn("x/a") == answer
    w.core.forget("x/a", "x", w.now)
    w.turn("x/b")
    w.core.revise(limits("cx"), w.now)
    assert w.core.take_wakes() == (Wake("x/b", w.now),)


def test_a_preview_names_the_moment_and_when_to_ask_again() -> None:
    w = world("cd", max_concurrency=1, rates={"p": RateLimit(1, 5000.0)})
    token = ask("c/b", expires=w.now + 600.0, requested=True)
    assert w.core.preview(ask("c/b"), w.now) is None
    w.turn("c/a")
    assert w.core.preview(ask("d/a"), w.now) == Held(inf, "rate_limit", w.now + FALLBACK)
    w.settle("c/a", ISSUED)
    assert w.core.preview(token, w.now) == Held(w.now + 5000.0, "rate_limit", w.now + FALLBACK)
    w.now += 4900.0
    assert w.core.preview(ask("c/b"), w.now) == Held(w.now + 100.0, "rate_limit", w.now + 100.0)


def test_a_preview_tells_that_the_slots_of_the_provider_are_taken() -> None:
    w = world("cd", max_concurrency=1)
    w.turn("c/a")
    assert w.core.preview(ask("d/a"), w.now) == Held(inf, "concurrency", w.now + FALLBACK)


def test_a_preview_for_a_refused_target_is_not_that_for_its_sibling() -> None:
    w = World(limits())
    send(w, "c/a", REFUSED)
    assert w.core.preview(ask("c/a"), w.now) == Held(w.now + 300.0, "refused", w.now + 300.0)
    assert w.core.preview(ask("c/b"), w.now) == Held(w.now + 2.0, "refused", w.now + 2.0)


def test_a_target_that_waited_for_its_own_moment_waits_no_longer_once_it_is_granted() -> None:
    w = world()
    send(w, "c/a", OWN)
    w.turn("c/a")
    assert list(w.core.waiting.timed) == ["c/a"]
    w.now += 30.0
    assert isinstance(w.turn("c/a"), Granted)
    assert not w.core.waiting.timed


def test_a_target_that_waits_a_second_time_has_not_waited_since_the_first() -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/b")
    w.now += 10.0
    w.settle("c/a", ISSUED)
    w.run()
    w.settle("c/b", ISSUED)
    w.turn("c/a")
    w.turn("c/b")
    w.now += 1.0
    assert view(w.core, w.now).providers[PROVIDER].longest_wait == 1.0


# -- outcomes --------------------------------------------------------------------------------------


def test_each_ticket_ends_at_its_deadline_however_many_there_are() -> None:
    w = world()
    tickets = []
    for number in range(5):
        w.turn(f"c/{number}")
        tickets.append(w.tickets[f"c/{number}"])
        w.now += 0.1
    w.settle("c/0", ISSUED)
    w.now += 40.0
    w.core.sweep(w.now)
    assert w.core.registry.providers[PROVIDER].in_flight == 0
    assert [w.core.settle(ticket, REFUSED, w.now) for ticket in tickets] == [Settled()] * 5
    assert w.core.refusal("c/1", "c") is None


def test_an_attempt_that_did_not_reach_the_endpoint_does_not_count_against_a_rate_limit() -> None:
    w = world(rates={"p": RateLimit(1, 60.0)})
    send(w, "c/a", NO_ROUTE)
    (rate,) = w.core.registry.clients["c"].rates
    assert not rate.counts(w.now)
    send(w, "c/b", SILENCE)
    assert list(rate.ages(w.now)) == [0.0]


def test_an_attempt_that_is_given_back_lets_a_target_of_another_provider_with_the_same_rate_limit_go() -> None:
    rates = {"p": RateLimit(1, 60.0)}
    elsewhere = limits("d", rates=rates, provider="https://other.example.com/token").clients
    w = World(Limits({**limits("c", rates=rates).clients, **elsewhere}, rates))
    w.turn("c/a")
    w.turn("d/a")
    w.alarms["d/a"] = inf  # it waits to be woken
    w.settle("c/a", NO_ROUTE)
    w.run()
    assert list(w.tickets) == ["d/a"]


def test_the_demand_of_a_first_token_is_that_of_its_target() -> None:
    w = world(rates={"p": RateLimit(1, 3600.0)})
    send(w, "c/a", ISSUED)
    (rate,) = w.core.registry.clients["c"].rates
    assert rate.spaced
    w.core.forget("c/a", "c", w.now)
    assert not rate.spaced


@pytest.mark.parametrize(("outcome", "left"), [(NO_ROUTE, True), (TOO_MANY, False), (ISSUED, False)])
def test_the_reserved_attempt_is_used_once_it_reached_the_endpoint(outcome: Outcome, left: bool) -> None:
    w = World(limits())
    ledger = w.core.registry.clients["c"].ledger
    for _ in range(3):
        ledger.refused(w.now, governed=False)
    ledger.changed = True
    send(w, "c/a", outcome)
    assert ledger.changed is left


@pytest.mark.parametrize(("outcome", "counted"), [(REFUSED, 1), (SILENCE, 0), (ISSUED, 0)])
def test_of_attempts_with_former_credentials_only_refusals_count(outcome: Outcome, counted: int) -> None:
    w = World(limits())
    w.turn("c/a")
    w.core.forgive("c", w.now)
    w.settle("c/a", outcome)
    client = w.core.registry.clients["c"]
    assert client.ledger.count(120.0, w.now) == counted
    assert client.ledger.in_flight == 0
    assert client.breaker.state(w.now) == "half_open"


def test_the_first_refusal_of_a_client_that_worked_is_told_to_the_journal() -> None:
    w = world()
    send(w, "c/a", FULL)
    assert w.journal[0][1] == ["refused", "c"]
    assert {entry[0] for _, entry in w.journal} == {"refused", "client", "target"}


def test_targets_that_are_refused_on_their_own_leave_one_attempt_of_the_limit() -> None:
    w = world()
    for number in range(6):
        w.turn(f"c/{number}")
    for number in range(6):
        w.settle(f"c/{number}", OWN)
        w.core.registry.clients["c"].breaker.got_token("", w.now, w.now)
    assert w.core.registry.clients["c"].ledger.count(120.0, w.now) == 3


def test_an_unclear_outcome_moves_the_moment_of_a_target_refused_on_its_own() -> None:
    w = world()
    send(w, "c/a", OWN)
    w.now += 30.0
    assert send(w, "c/a", SILENCE) == w.now + 30.0


def test_a_token_ends_what_its_target_was_refused_for() -> None:
    w = world()
    send(w, "c/a", OWN)
    w.now += 30.0
    assert send(w, "c/a", ISSUED) == 0.0
    assert w.core.refusal("c/a", "c") is None


def test_a_refused_target_that_waits_gets_its_own_moment_with_the_token_of_a_sibling() -> None:
    w = World(limits())
    send(w, "c/a", REFUSED)
    w.turn("c/a")
    w.alarms["c/a"] = inf
    w.now += 2.0
    send(w, "c/b", ISSUED)
    own = 1000.0 + 30.0
    assert w.core.waiting.timed == {"c/a": ("c", "refused", own)}
    assert w.alarms["c/a"] == own
    w.now += 1.0
    assert view(w.core, w.now).providers[PROVIDER].longest_wait == 3.0


def test_settling_says_when_a_target_refused_on_its_own_may_try_again() -> None:
    w = world()
    w.turn("c/a")
    assert w.core.settle(w.tickets.pop("c/a"), SILENCE, w.now) == Settled(0.0, 0.0), "it is not refused"
    w.turn("c/a")
    assert w.core.settle(w.tickets.pop("c/a"), OWN, w.now) == Settled(w.now + 30.0, w.now + 30.0)


# -- the refusal that holds a target ---------------------------------------------------------------


def test_a_refusal_tells_its_count_its_probe_and_the_request() -> None:
    w = world()
    send(w, "c/own", replace(OWN, request="1"))
    found = w.core.refusal("c/own", "c")
    assert found == Refusal(OWN, 1, w.now + 30.0, own=True, request="1")
    send(w, "c/a", FULL)
    assert w.core.refusal("c/a", "c") == Refusal(FULL, 1, w.now + 30.0, own=False, request="f00d")
    assert w.core.refusal("c/b", "c") == Refusal(FULL, 1, w.now + 30.0, own=False, request="")
    assert w.core.refusal("c/b", "x") is None


# -- changes from outside --------------------------------------------------------------------------


def test_an_offer_that_a_changed_limit_no_longer_allows_is_taken_back() -> None:
    w = world(max_concurrency=1, rates={"p": RateLimit(10, 60.0)})
    w.turn("c/a")
    w.turn("c/b")
    w.settle("c/a", ISSUED)
    assert list(w.core.waiting.offers) == ["c/b"]
    w.core.revise(limits(max_concurrency=1, rates={"p": RateLimit(1, 60.0)}), w.now)
    assert not w.core.waiting.offers
    assert list(w.core.waiting.queued) == ["c/b"]


def test_changed_credentials_take_back_the_offers_of_their_client_alone() -> None:
    w = world("cd", max_concurrency=2)
    for name in ("c/a", "d/a", "c/b", "d/b"):
        w.turn(name)
    w.settle("c/a", ISSUED)
    w.settle("d/a", ISSUED)
    before = dict(w.core.waiting.offers)
    assert before.keys() == {"c/b", "d/b"}
    w.core.forgive("c", w.now)
    after = w.core.waiting.offers
    assert after["d/b"] is before["d/b"]
    assert after["c/b"] is not before["c/b"]
    assert after["c/b"].epoch == w.core.registry.clients["c"].breaker.epoch


def test_changed_credentials_wake_a_target_that_was_refused_on_its_own() -> None:
    w = world()
    send(w, "c/a", OWN)
    w.turn("c/a")
    w.core.take_entries()
    w.core.forgive("c", w.now)
    assert w.core.take_wakes() == (Wake("c/a", w.now),)
    assert w.core.take_entries() == [["client", "c", None], ["target", "c", "c/a", None]]


def test_after_changed_credentials_targets_that_were_refused_on_their_own_go_one_at_a_time() -> None:
    w = world("cd", max_concurrency=2)
    for name in ("c/a", "c/b"):
        send(w, name, OWN)
        w.core.registry.clients["c"].breaker.got_token("", w.now, w.now)
    w.now += 30.0
    for name in ("d/a", "d/b"):
        w.core.registry.clients["d"].breaker.got_token("", w.now, w.now)
        w.turn(name)
    for name in ("c/a", "c/b"):
        assert isinstance(w.turn(name), Held)
    w.core.forgive("c", w.now)
    w.follow()
    for name in ("d/a", "d/b"):
        w.settle(name, ISSUED)
    w.run()
    assert list(w.tickets) == ["c/a"]


def test_credentials_that_worked_before_are_refused_at_the_pace_of_those() -> None:
    for client, wait in (("c", 30.0), ("x", 300.0)):
        w = World(limits())
        w.core.worked(client)
        assert send(w, "c/a", REFUSED) == w.now + wait
        assert w.core.registry.clients["c"].breaker.worked is (client == "c")


def test_the_token_of_another_daemon_clears_the_refusal_in_the_journal() -> None:
    w = world()
    send(w, "c/a", REFUSED)
    w.core.take_entries()
    w.core.fleet_issued("c/a", "c", w.now)
    assert w.core.noted
    assert w.core.take_entries() == [["client", "c", None], ["target", "c", "c/a", None]]
    assert not w.core.noted


def test_a_target_that_no_longer_asks_leaves_its_offer_to_the_next() -> None:
    w = world(max_concurrency=1)
    for name in ("c/a", "c/b", "c/d"):
        w.turn(name)
    w.settle("c/a", ISSUED)
    w.core.cancel("c/b", "c", w.now)
    assert list(w.core.waiting.offers) == ["c/d"]
    w.core.cancel("x/a", "x", w.now)


def test_a_removed_target_is_cleared_in_the_journal() -> None:
    w = world()
    send(w, "c/a", OWN)
    w.core.take_entries()
    w.core.forget("c/a", "c", w.now)
    assert w.core.take_entries() == [["target", "c", "c/a", None]]
    assert w.core.refusal("c/a", "c") is None


def test_a_restart_needs_the_attempts_in_flight_with_their_age() -> None:
    w = World(limits())
    w.turn("c/a")
    w.now += 7.0
    assert list(w.core.dump(w.now)) == [(7.0, ["sent", w.tickets["c/a"].number, "c", True, []])]

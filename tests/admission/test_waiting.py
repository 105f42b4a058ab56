"""Queues and offers: who is woken when, and what is given back."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from bearerd.admission.core import FALLBACK
from bearerd.admission.types import Held
from bearerd.admission.view import view
from bearerd.terms import RateLimit
from support.admission import ISSUED, OWN, PROVIDER, REFUSED, World, limits

ONE_A_MINUTE = {"p": RateLimit(1, 60.0)}


def world(clients: str = "c", **changes: object) -> World:
    """A world whose clients just got a token."""
    w = World(limits(clients, **changes))  # type: ignore[arg-type]  # a test's keywords
    for client in clients:
        w.core.registry.clients[client].breaker.got_token("", w.now - 10.0, w.now)
    return w


# -- offers that are taken back --------------------------------------------------------------------


def cancelled(w: World) -> None:
    w.core.cancel("c/b", "c", w.now)


def too_late(w: World) -> None:
    w.now += 5.0
    w.core.sweep(w.now)


def removed(w: World) -> None:
    w.core.forget("c/b", "c", w.now)


def refused(w: World) -> None:
    w.core.fleet_refused("c/z", "c", REFUSED, 1, 300.0, w.now)
    assert isinstance(w.turn("c/b"), Held)


@pytest.mark.parametrize("taken_back", [cancelled, removed, too_late, refused])
def test_an_offer_that_is_taken_back_gives_its_retry_and_its_slot_back(taken_back: Callable[[World], None]) -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/b", retry=True, failures=1)
    w.settle("c/a", ISSUED)
    provider = w.core.registry.providers[PROVIDER]
    provider.retry._left = 5.0  # as if others had used it
    provider.retry._at = w.now + 10.0
    assert list(w.core.waiting.offers) == ["c/b"]
    taken_back(w)
    assert w.core.waiting.offers == {}
    assert provider.in_flight == 0
    assert provider.retry.left(w.now) == 6.0


@pytest.mark.parametrize("change", ["limits", "credentials"])
def test_a_requested_retry_whose_offer_is_taken_back_waits_again_with_its_constraints(change: str) -> None:
    w = world(max_concurrency=1, rates={"p": RateLimit(10, 60.0)})
    w.turn("c/a")
    w.turn("c/b", retry=True, failures=1, expires=w.now + 600.0, requested=True)
    w.turn("c/d", retry=True, failures=1, expires=w.now + 700.0, requested=True)
    w.settle("c/a", ISSUED)
    del w.alarms["c/b"]
    if change == "limits":
        w.limits = limits("c", max_concurrency=1, rates={"p": RateLimit(20, 60.0)})
        w.core.revise(w.limits, w.now)
    else:
        w.core.forgive("c", w.now)
    w.follow()
    w.check()
    provider = w.core.registry.providers[PROVIDER]
    assert list(w.core.waiting.offers) == ["c/b"]
    assert list(w.core.waiting.queued) == ["c/d"]
    assert (provider.in_flight, provider.retry.left(w.now)) == (1, 9.0)


def test_a_target_that_no_longer_asks_has_waited_for_nothing_when_it_asks_again() -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/b")
    w.now += 10.0
    w.core.cancel("c/b", "c", w.now)
    w.now += 10.0
    w.turn("c/b")
    w.now += 1.0
    assert view(w.core, w.now).providers[PROVIDER].longest_wait == 1.0


# -- what holds a target ---------------------------------------------------------------------------


def test_a_target_that_only_the_slots_of_its_provider_hold_waits_for_an_event() -> None:
    w = world("cd", max_concurrency=1)
    w.turn("c/a")
    assert w.turn("d/a") == Held(inf, "concurrency", w.now + FALLBACK)


def test_a_shared_limit_that_opens_this_very_moment_holds_nobody() -> None:
    w = world("cd", max_concurrency=1, rates={"p": RateLimit(2, 60.0)})
    for name in ("c/a", "c/b"):
        w.turn(name)
        w.settle(name, ISSUED)
    w.turn("c/d")
    w.turn("d/a")
    w.now += 60.0
    w.run()
    assert list(w.tickets) == ["c/d"]
    assert w.turn("d/a") == Held(inf, "concurrency", w.now + FALLBACK)


def test_a_target_that_does_not_wait_has_no_client_to_wait_for() -> None:
    w = world()
    w.turn("c/a")
    w.turn("c/b")
    assert [w.core.waiting.client_of(name) for name in ("c/a", "c/unknown")] == [None, None]


def test_a_moment_that_has_come_wakes_nobody_again() -> None:
    w = world(rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    assert isinstance(w.turn("c/b"), Held)
    queue = w.core.waiting.queued["c/b"]
    opens = w.now + 60.0
    assert [w.core.waiting.moment("c/b", queue, now) for now in (opens - 0.1, opens)] == [opens, inf]


# -- time passes while targets wait ----------------------------------------------------------------


@pytest.mark.parametrize(("passed", "first"), [(14.9, "d/without"), (15.0, "c/valid"), (15.1, "c/valid")])
def test_a_token_is_urgent_from_5_s_before_its_expiry_on_although_slots_became_free_before(
    passed: float, first: str
) -> None:
    w = world("cd", max_concurrency=2)
    w.turn("d/first")
    w.turn("d/second")
    w.turn("c/failing", failures=30)
    w.turn("c/valid", expires=w.now + 20.0)
    w.turn("d/without", failures=10)
    w.turn("d/new")
    w.settle("d/second", ISSUED)  # a free slot for the most urgent one, long before
    w.run()
    assert list(w.tickets) == ["d/first", "d/new"]
    w.now += passed
    w.settle("d/first", ISSUED)
    w.run()
    assert list(w.tickets) == ["d/new", first]


def test_clients_that_are_no_longer_let_go_make_room_for_another_one() -> None:
    w = world("cdefg", max_concurrency=6)
    for name in ("c/a", "d/a", "e/a", "f/a", "g/a", "g/b"):
        w.turn(name)
    for client in "cdef":
        w.turn(f"{client}/b")
    w.turn("g/c", failures=1)
    w.now += 61.0  # since the last token, so only one attempt of each client may run
    w.settle("g/a", ISSUED)
    w.run()
    assert list(w.tickets) == ["c/a", "d/a", "e/a", "f/a", "g/b", "g/c"]
    assert w.held["c/b"].reason == "concurrency"
    assert isinstance(answer := w.turn("c/b"), Held)
    assert answer.reason in {"half_open", "concurrency"}


def test_a_moment_of_a_queue_that_is_gone_does_not_touch_its_successor() -> None:
    w = world("cd", max_concurrency=2)
    w.turn("d/a")
    w.turn("d/b")
    w.turn("c/gone", expires=w.now + 20.0)
    w.core.cancel("c/gone", "c", w.now)
    w.turn("c/b", expires=w.now + 900.0)
    w.now += 16.0  # the token of the one that is gone would be urgent
    w.turn("c/d", expires=w.now + 900.0)
    w.settle("d/a", ISSUED)
    w.run()
    assert list(w.tickets) == ["d/b", "c/b"]
    assert view(w.core, w.now).providers[PROVIDER].held == {"concurrency": 1}


@pytest.mark.parametrize("clients", ["c", "cd"])
def test_a_target_that_does_not_request_when_it_is_due_is_passed_over_a_second_later(clients: str) -> None:
    w = world(clients, rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/lost")
    other = f"{clients[-1]}/b"
    w.turn(other)
    del w.alarms["c/lost"]
    w.alarms[other] = inf  # it waits to be woken
    for passed in (30.0, 29.5, 0.5, 0.9):
        w.now += passed
        w.core.sweep(w.now)  # the daemon does that every few seconds
        w.follow()
        assert "c/lost" not in w.alarms
    w.now += 0.1
    w.core.sweep(w.now)
    w.follow()
    assert list(w.core.waiting.offers) == ["c/lost"]
    w.now += 5.0
    w.core.sweep(w.now)
    w.follow()
    w.run()
    assert w.tickets.keys() >= {other}


def test_another_target_is_woken_in_place_of_one_that_is_gone() -> None:
    w = world(rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/gone")
    w.turn("c/b")
    opens = w.now + 60.0
    w.alarms["c/b"] = inf
    w.core.forget("c/gone", "c", w.now)
    w.follow()
    assert w.alarms["c/b"] == opens


def test_another_target_is_woken_in_place_of_those_of_a_removed_client() -> None:
    w = world("cd", rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/gone")
    w.turn("d/a")
    w.alarms["d/a"] = inf
    w.core.revise(limits("d", rates=ONE_A_MINUTE), w.now)
    w.follow()
    assert w.alarms["d/a"] == w.now + 60.0


def test_another_target_is_woken_in_place_of_one_that_waits_for_its_own_moment() -> None:
    w = world(rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/refused")
    w.turn("c/b")
    opens = w.now + 60.0
    w.core.fleet_refused("c/refused", "c", OWN, 1, 900.0, w.now)
    w.alarms["c/b"] = inf
    assert w.turn("c/refused") == Held(w.now + 900.0, "refused", w.now + 900.0)
    assert w.alarms["c/b"] == opens


def test_a_target_is_woken_once_for_each_moment() -> None:
    w = world(rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/first")
    w.turn("c/b")
    for _ in range(3):
        w.core.request(w.asks["c/b"], w.now)
        assert w.core.take_wakes() == ()


def test_a_target_is_woken_again_if_another_one_used_its_moment() -> None:
    w = world(rates=ONE_A_MINUTE)
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/first", expires=w.now + 900.0)
    w.now += 60.0
    w.alarms.clear()
    w.turn("c/quick")
    w.run()
    w.alarms["c/first"] = inf
    w.settle("c/quick", ISSUED)
    assert w.alarms["c/first"] == w.now + 60.0

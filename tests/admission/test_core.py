"""Slots, retry budget and rate limits together: who goes, who is held and by what, and who is woken."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from bearerd.admission.core import FALLBACK
from bearerd.admission.rate import late_margin
from bearerd.admission.types import Granted, Held, Limits
from bearerd.grant.outcome import Outcome
from bearerd.model import RateLimit
from support.admission import HTML, ISSUED, NO_ROUTE, OWN, SILENCE, TOO_MANY, UNSENT, World, ask, limits
from support.targets import CLIENT, PROVIDER, target


def world(clients: str = "c", **changes: object) -> World:
    """A world whose clients just got a token."""
    w = World(limits(clients, **changes))  # type: ignore[arg-type]  # a test's keywords
    for client in clients:
        just_worked(w, client)
    w.granted.clear()
    w.log.clear()
    return w


def just_worked(w: World, client: str) -> None:
    w.core.registry.clients[client].breaker.got_token("", w.now - 10.0, w.now)


def held(answer: Granted | Held | None) -> Held:
    assert isinstance(answer, Held), answer
    return answer


# -- slots and order -------------------------------------------------------------------------------


def test_a_token_that_comes_near_its_expiry_while_it_waits_goes_before_those_of_other_clients() -> None:
    w = world("cd", max_concurrency=1)
    w.turn("d/first")
    w.turn("c/failing", failures=30)
    w.turn("c/valid", expires=w.now + 20.0)
    w.turn("d/without", failures=10)
    w.now += 16.0
    w.settle("d/first", ISSUED)
    w.run()
    assert list(w.tickets) == ["c/valid"]


def test_no_more_than_max_concurrency_and_the_next_is_woken_when_a_slot_is_free() -> None:
    w = world(max_concurrency=2)
    for name in ("c/a", "c/b", "c/d", "c/e"):
        w.turn(name)
    assert list(w.tickets) == ["c/a", "c/b"]
    assert w.held["c/d"] == Held(inf, "concurrency", w.now + FALLBACK)
    w.settle("c/a", ISSUED)
    assert w.due() == "c/d"
    w.run()
    assert list(w.tickets) == ["c/b", "c/d"]


def test_slots_of_a_provider_are_shared_by_its_clients_and_each_client_has_its_own_bound() -> None:
    w = world("cd", max_concurrency=3)
    one = replace(w.limits.clients["d"], max_concurrency=1)
    w.limits = replace(w.limits, clients={**w.limits.clients, "d": one})
    w.core.revise(w.limits, w.now)
    for name in ("d/a", "d/b", "c/a", "c/b", "c/d"):
        w.turn(name)
    assert list(w.tickets) == ["d/a", "c/a", "c/b"]
    w.settle("c/a", ISSUED)
    w.run()
    assert list(w.tickets) == ["d/a", "c/b", "c/d"]
    w.check()


def test_another_providers_clients_are_not_held() -> None:
    w = World(limits("c", max_concurrency=1))
    other = limits("d", provider="https://other.example.com/token").clients
    w.limits = Limits({**w.limits.clients, **other})
    w.core.revise(w.limits, w.now)
    w.turn("c/a")
    assert isinstance(w.turn("d/a"), Granted)


def test_slots_go_to_the_most_urgent_of_all_clients() -> None:
    w = world("cde", max_concurrency=1)
    w.turn("c/first")
    w.turn("c/later", expires=w.now + 900.0)
    w.turn("d/none", failures=1)
    w.turn("e/soon", expires=w.now + 100.0)
    w.turn("d/new")
    w.turn("c/about", expires=w.now + 4.0)
    while w.tickets:
        w.settle(next(iter(w.tickets)), ISSUED)
        w.run()
    assert w.granted == ["c/first", "c/about", "d/new", "d/none", "e/soon", "c/later"]


def test_nobody_gets_in_between_a_wake_and_the_request_that_follows() -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/b", failures=3)
    w.settle("c/a", ISSUED)
    assert held(w.turn("c/quick", expires=w.now + 1.0)).reason == "concurrency"
    w.run()
    assert list(w.tickets) == ["c/b"]


def test_an_offer_that_is_not_taken_goes_to_the_next_after_5_s() -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/lost")
    w.turn("c/b")
    w.settle("c/a", ISSUED)
    del w.alarms["c/lost"]
    w.now += 4.999
    w.core.sweep(w.now)
    assert held(w.turn("c/b")).reason == "concurrency"
    w.now += 0.001
    w.core.sweep(w.now)
    w.follow()
    w.run()
    assert list(w.tickets) == ["c/b"]


def test_a_ticket_that_nobody_settles_counts_as_a_timeout_after_its_deadline() -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/b")
    w.now += 39.999
    w.core.sweep(w.now)
    assert held(w.turn("c/b")).reason == "concurrency"
    w.now += 0.001
    w.core.sweep(w.now)
    w.follow()
    lost = w.tickets.pop("c/a")
    w.run()
    assert list(w.tickets) == ["c/b"]
    w.core.settle(lost, ISSUED, w.now)
    w.check()


def test_a_head_that_does_not_come_at_its_moment_holds_nobody_for_long() -> None:
    w = world(rates={"p": RateLimit(1, 60.0)})
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/lost")
    w.turn("c/b")
    del w.alarms["c/lost"]
    w.now += 61.0
    w.core.sweep(w.now)  # offers it to the head, once more
    w.follow()
    del w.alarms["c/lost"]
    w.now += 5.0
    w.core.sweep(w.now)
    w.follow()
    w.run()
    assert list(w.tickets) == ["c/b"]


def test_a_target_that_is_forgotten_makes_room_for_the_next() -> None:
    w = world(max_concurrency=1)
    for name in ("c/a", "c/b", "c/d", "c/e"):
        w.turn(name)
    w.core.forget("c/b", "c", w.now)
    w.settle("c/a", ISSUED)
    w.core.forget("c/d", "c", w.now)  # it was offered the slot
    w.core.forget("c/unknown", "nobody", w.now)
    w.follow()
    w.alarms = {"c/e": w.alarms["c/e"]}
    w.run()
    w.check()
    assert list(w.tickets) == ["c/e"]


@pytest.mark.parametrize("change", ["limits", "credentials"])
def test_a_target_whose_offer_is_taken_back_by_a_change_keeps_its_place(change: str) -> None:
    w = world(max_concurrency=1)
    w.turn("c/first")
    w.turn("c/later", expires=w.now + 60.0)
    w.turn("c/sooner", expires=w.now + 50.0)
    w.settle("c/first", ISSUED)
    if change == "limits":
        w.core.revise(w.limits, w.now)
    else:
        w.core.forgive("c", w.now)
    w.follow()
    w.alarms = dict.fromkeys(["c/later", "c/sooner"], w.now)
    w.run()
    assert list(w.tickets) == ["c/sooner"]


def test_a_client_that_the_limits_do_not_name_is_held_until_they_do() -> None:
    w = world()
    assert held(w.turn("x/a")).reason == "unknown_client"
    w.core.revise(limits("cx"), w.now)
    w.follow()
    w.run()
    assert list(w.tickets) == ["x/a"]
    w.settle("x/a", ISSUED)
    w.core.revise(limits("c"), w.now)
    assert held(w.core.preview(ask("x/a"), w.now)).reason == "unknown_client"
    w.core.forgive("x", w.now)
    w.core.worked("x")
    assert w.core.refusal("x/a", "x") is None


# -- the retry budget ------------------------------------------------------------------------------


def failing(w: World, count: int) -> None:
    """That many targets fail once, and wait to try again."""
    for number in range(count):
        w.turn(f"c/{number}")
        w.settle(f"c/{number}", SILENCE)
        just_worked(w, "c")


def test_retries_share_a_budget_and_first_attempts_are_not_held_by_it() -> None:
    w = world(max_concurrency=100)
    failing(w, 12)
    answers = [w.turn(f"c/{number}") for number in range(12)]
    assert [isinstance(answer, Granted) for answer in answers] == [True] * 10 + [False] * 2
    assert held(answers[-1]).reason == "retry_budget"
    assert isinstance(w.turn("c/new"), Granted)
    w.now += 1.0
    w.run()
    assert "c/10" in w.tickets
    assert "c/11" not in w.tickets
    w.check()


@pytest.mark.parametrize(
    ("outcome", "fills"),
    [(ISSUED, True), (OWN, True), (TOO_MANY, True), (HTML, True), (SILENCE, False), (UNSENT, False), (NO_ROUTE, False)],
)
def test_any_answer_of_the_endpoint_fills_it(outcome: Outcome, fills: bool) -> None:
    w = world(max_concurrency=100)
    failing(w, 12)
    for number in range(12):
        w.turn(f"c/{number}")
    w.turn("c/new")
    w.settle("c/new", outcome)
    just_worked(w, "c")
    w.run()
    assert ("c/11" in w.tickets) is fills


def test_a_retry_that_sent_nothing_is_given_back() -> None:
    w = world(max_concurrency=100)
    failing(w, 11)
    for number in range(11):
        w.turn(f"c/{number}")
    w.settle("c/0", UNSENT)
    just_worked(w, "c")
    w.run()
    assert "c/10" in w.tickets


def test_a_last_attempt_passes_the_retry_budget_but_not_slots() -> None:
    w = world(max_concurrency=11)
    failing(w, 12)
    for number in range(10):
        w.turn(f"c/{number}")
    assert held(w.turn("c/10", expires=w.now + 20.0)).reason == "retry_budget"
    assert isinstance(w.turn("c/10", last_attempt=True), Granted)
    assert held(w.turn("c/11", expires=w.now + 20.0, last_attempt=True)).reason == "concurrency"


def test_one_target_that_always_fails_holds_no_other_up() -> None:
    """L7: in 0.1.0, after an outage, it kept the provider's door shut for those without a token."""
    w = world()
    failing(w, 3)
    for _ in range(20):
        w.turn("c/0")
        w.settle("c/0", SILENCE)
        just_worked(w, "c")
        w.now += 2.0
    assert isinstance(w.turn("c/1"), Granted)
    assert isinstance(w.turn("c/new"), Granted)


# -- rate limits -----------------------------------------------------------------------------------


def test_a_limit_that_clients_share_holds_all_of_them_and_goes_to_the_most_urgent_when_it_has_room() -> None:
    w = world("cd", rates={"p": RateLimit(1, 60.0)})
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    assert held(w.turn("d/later", failures=1)) == Held(w.now + 60.0, "rate_limit", w.now + 60.0)
    assert held(w.turn("c/sooner")).until == w.now + 60.0
    w.now += 59.999
    w.run()
    assert not w.tickets
    w.now += 0.001
    w.run()
    assert list(w.tickets) == ["c/sooner"]


def test_a_last_attempt_and_a_retry_keep_within_the_limit_too() -> None:
    w = world(rates={"p": RateLimit(1, 60.0)})
    w.turn("c/a")
    w.settle("c/a", SILENCE)
    assert held(w.turn("c/a")).reason == "rate_limit"
    assert held(w.turn("c/b", expires=w.now + 20.0, last_attempt=True)).reason == "rate_limit"


def test_a_removed_rate_limit_lets_everyone_go_at_once() -> None:
    """L8: in 0.1.0 they went on waiting for their promised moment, 8 h away."""
    w = world("cd", rates={"p": RateLimit(2, 8 * 3600.0)})
    for name in ("c/a", "c/b"):
        w.turn(name)
        w.settle(name, ISSUED)
    for name in ("c/x", "d/y"):
        assert held(w.turn(name)).reason == "rate_limit"
    w.limits = limits("cd")
    w.core.revise(w.limits, w.now)
    w.follow()
    w.run()
    assert set(w.tickets) == {"c/x", "d/y"}


@pytest.mark.parametrize(("limit", "until"), [(RateLimit(3, 100.0), 0.0), (RateLimit(2, 10.0), 10.0)])
def test_a_changed_rate_limit_applies_at_once_to_those_that_wait(limit: RateLimit, until: float) -> None:
    w = world("cd", rates={"p": RateLimit(2, 3600.0)})
    for name in ("c/a", "c/b"):
        w.turn(name)
        w.settle(name, ISSUED)
    w.turn("c/x")
    w.limits = limits("cd", rates={"p": limit})
    w.core.revise(w.limits, w.now)
    w.follow()
    start = w.now
    w.jump()
    assert list(w.tickets) == ["c/x"]
    assert w.now == start + until
    w.check()


def test_a_renewal_under_a_scarce_limit_waits_until_shortly_before_expiry_unless_somebody_asks() -> None:
    w = world(rates={"p": RateLimit(10, 8 * 3600.0)})
    token = {"lifetime": 3600.0, "period": 2880.0, "expires": w.now + 3600.0}
    late = w.now + 3600.0 - late_margin("c/a")
    for name in ("c/a", "c/b", "c/d"):
        w.turn(name)
        w.settle(name, ISSUED)
    assert held(w.turn("c/a", **token)) == Held(late, "rate_limit", late)
    w.now += 3000.0
    assert isinstance(w.turn("c/a", requested=True), Granted)


def test_a_limit_that_covers_the_renewals_leaves_them_at_their_time() -> None:
    w = world(rates={"p": RateLimit(30, 8 * 3600.0)})
    for name in ("c/a", "c/b", "c/d"):
        assert isinstance(w.turn(name, lifetime=3600.0, period=2880.0, expires=w.now + 720.0), Granted)


def test_those_that_wait_for_a_late_renewal_are_woken_when_the_limit_changes() -> None:
    w = world(rates={"p": RateLimit(10, 8 * 3600.0)})
    for name in ("c/a", "c/b", "c/d"):
        w.turn(name, lifetime=3600.0, period=2880.0, expires=w.now + 3600.0)
    waiting = set(w.core.waiting.timed)
    assert waiting
    w.limits = limits("c", rates={"p": RateLimit(100, 8 * 3600.0)})
    w.core.revise(w.limits, w.now)
    w.follow()
    w.run()
    assert waiting <= set(w.tickets)


def test_a_rate_limit_is_kept_over_restarts_whatever_its_length() -> None:
    """L10: 0.1.0 sent 30 in 24 s with 5/30s."""
    w = World(limits("c", rates={"p": RateLimit(5, 30.0)}))
    for number in range(10):
        w.add(f"c/{number}")
    sent = 0
    for _ in range(24):
        w.run()
        for name in list(w.tickets):
            w.settle(name, ISSUED)
            w.run()
        sent = len(w.log)
        w.restart(after=1.0)
        w.check()
    assert sent == 5


# -- changes ---------------------------------------------------------------------------------------


def test_more_slots_in_a_changed_config_are_used_at_once_and_fewer_as_attempts_end() -> None:
    w = world(max_concurrency=1)
    for name in ("c/a", "c/b", "c/d"):
        w.turn(name)
    w.limits = limits("c", max_concurrency=2)
    w.core.revise(w.limits, w.now)
    w.follow()
    w.run()
    assert list(w.tickets) == ["c/a", "c/b"]
    w.core.revise(limits("c", max_concurrency=1), w.now)
    w.settle("c/a", ISSUED)
    w.run()
    assert list(w.tickets) == ["c/b"]
    w.settle("c/b", ISSUED)
    w.run()
    assert list(w.tickets) == ["c/d"]


def test_a_client_that_moves_to_another_provider_waits_there_and_frees_its_old_slot_when_it_ends() -> None:
    w = world("cd", max_concurrency=1)
    w.turn("c/a")
    w.turn("d/a")
    w.turn("c/b")
    moved = limits("c", max_concurrency=1, provider="https://other.example.com/token").clients
    w.limits = Limits({**w.limits.clients, **moved})
    w.core.revise(w.limits, w.now)
    w.follow()
    w.settle("c/a", ISSUED)
    w.run()
    assert set(w.tickets) == {"c/b", "d/a"}
    w.check()
    w.core.sweep(w.now)
    w.check()


# -- preview ---------------------------------------------------------------------------------------


def test_a_preview_says_what_a_request_would_and_changes_nothing() -> None:
    w = world(max_concurrency=1)
    assert w.core.preview(ask("c/a"), w.now) is None
    w.turn("c/a")
    assert held(w.core.preview(ask("c/b"), w.now)).reason == "concurrency"
    assert not w.core.waiting.groups
    w.turn("c/b")
    w.settle("c/a", OWN)
    assert w.core.preview(ask("c/b"), w.now) is None
    assert held(w.core.preview(ask("c/a"), w.now)) == Held(w.now + 30.0, "refused", w.now + 30.0)
    w.check()


# -- limits of a config ----------------------------------------------------------------------------


def test_the_limits_of_clients_are_those_of_their_config() -> None:
    slow = replace(PROVIDER, timeout=60.0, max_concurrency=3)
    limited = replace(CLIENT, name="b", provider=slow, budgets=(("client-b", RateLimit(1, 2.0)),))
    found = Limits.of(each.client for each in (target("x"), target("y"), target("z", limited)))
    assert found.rates == {"client-b": RateLimit(1, 2.0)}
    assert found.clients.keys() == {"dnb", "b"}
    b = found.clients["b"]
    assert (b.provider, b.max_concurrency, b.budgets, b.deadline) == (PROVIDER.url, 3, ("client-b",), 90.0)

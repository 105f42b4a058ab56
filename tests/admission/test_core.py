"""Slots, retry budget and rate limits together: which targets go, are held and are woken."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from bearerd.admission.core import FALLBACK
from bearerd.admission.rate import late_margin
from bearerd.admission.types import Granted, Held, Limits
from bearerd.grant.outcome import Outcome
from bearerd.model import Client
from bearerd.terms import RateLimit, Reference
from support.admission import HTML, ISSUED, NO_ROUTE, OWN, SILENCE, TOO_MANY, UNSENT, World, ask, limits
from support.targets import CLIENT, PROVIDER, target

COMMAND = Reference("command", "/bin/a", argv=("/bin/a",))


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


def test_at_most_max_concurrency_attempts_run_and_a_free_slot_wakes_the_next_target() -> None:
    w = world(max_concurrency=2)
    for name in ("c/a", "c/b", "c/d", "c/e"):
        w.turn(name)
    assert list(w.tickets) == ["c/a", "c/b"]
    assert w.held["c/d"] == Held(inf, "concurrency", w.now + FALLBACK)
    w.settle("c/a", ISSUED)
    assert w.due() == "c/d"
    w.run()
    assert list(w.tickets) == ["c/b", "c/d"]


def test_clients_share_the_slots_of_a_provider_within_their_own_limits() -> None:
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


def test_clients_of_other_providers_are_not_held() -> None:
    w = World(limits("c", max_concurrency=1))
    other = limits("d", provider="https://other.example.com/token").clients
    w.limits = Limits({**w.limits.clients, **other}, {})
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


def test_no_other_target_takes_the_slot_between_a_wake_and_its_request() -> None:
    w = world(max_concurrency=1)
    w.turn("c/a")
    w.turn("c/b", failures=3)
    w.settle("c/a", ISSUED)
    assert held(w.turn("c/quick", expires=w.now + 1.0)).reason == "concurrency"
    w.run()
    assert list(w.tickets) == ["c/b"]


def test_an_offer_that_is_not_taken_within_5_s_goes_to_the_next_target() -> None:
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


def test_an_unsettled_ticket_counts_as_a_timeout_after_its_deadline() -> None:
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


def test_a_first_target_that_does_not_request_in_time_is_passed_over() -> None:
    w = world(rates={"p": RateLimit(1, 60.0)})
    w.turn("c/a")
    w.settle("c/a", ISSUED)
    w.turn("c/lost")
    w.turn("c/b")
    del w.alarms["c/lost"]
    w.now += 61.0
    w.core.sweep(w.now)  # offers it to the first target again
    w.follow()
    del w.alarms["c/lost"]
    w.now += 5.0
    w.core.sweep(w.now)
    w.follow()
    w.run()
    assert list(w.tickets) == ["c/b"]


def test_a_removed_target_makes_room_for_the_next() -> None:
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
    """Let this many targets fail once and wait to retry."""
    for number in range(count):
        w.turn(f"c/{number}")
        w.settle(f"c/{number}", SILENCE)
        just_worked(w, "c")


def test_retries_share_a_budget_that_does_not_hold_first_attempts() -> None:
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
def test_any_answer_of_the_endpoint_fills_the_retry_budget(outcome: Outcome, fills: bool) -> None:
    w = world(max_concurrency=100)
    failing(w, 12)
    for number in range(12):
        w.turn(f"c/{number}")
    w.turn("c/new")
    w.settle("c/new", outcome)
    just_worked(w, "c")
    w.run()
    assert ("c/11" in w.tickets) is fills


def test_retries_that_fail_slow_the_next_one_down() -> None:
    w = world(max_concurrency=100)
    failing(w, 11)
    for number in range(10):
        w.turn(f"c/{number}")
    for number in range(10):
        w.settle(f"c/{number}", SILENCE)
    just_worked(w, "c")
    assert held(w.turn("c/10")).until == pytest.approx(w.now + 2.0)


def test_a_retry_that_was_not_sent_is_given_back() -> None:
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


def test_a_target_that_always_fails_does_not_hold_others() -> None:
    """L7: in 0.1.0 such a target held targets without a token after an outage."""
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


def test_a_shared_rate_limit_holds_all_clients_and_lets_the_most_urgent_go_first() -> None:
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


def test_rate_limits_also_hold_last_attempts_and_retries() -> None:
    w = world(rates={"p": RateLimit(1, 60.0)})
    w.turn("c/a")
    w.settle("c/a", SILENCE)
    assert held(w.turn("c/a")).reason == "rate_limit"
    assert held(w.turn("c/b", expires=w.now + 20.0, last_attempt=True)).reason == "rate_limit"


def test_removing_a_rate_limit_releases_all_targets_at_once() -> None:
    """L8: in 0.1.0 they went on waiting for up to 8 h."""
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
def test_a_changed_rate_limit_applies_at_once_to_waiting_targets(limit: RateLimit, until: float) -> None:
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


def test_a_renewal_under_a_scarce_limit_waits_until_shortly_before_expiry_unless_requested() -> None:
    w = world(rates={"p": RateLimit(10, 8 * 3600.0)})
    token = {"lifetime": 3600.0, "period": 2880.0, "expires": w.now + 3600.0}
    late = w.now + 3600.0 - late_margin("c/a")
    for name in ("c/a", "c/b", "c/d"):
        w.turn(name)
        w.settle(name, ISSUED)
    assert held(w.turn("c/a", **token)) == Held(late, "rate_limit", late)
    w.now += 3000.0
    assert isinstance(w.turn("c/a", requested=True), Granted)


def test_a_sufficient_rate_limit_does_not_move_renewals() -> None:
    w = world(rates={"p": RateLimit(30, 8 * 3600.0)})
    for name in ("c/a", "c/b", "c/d"):
        assert isinstance(w.turn(name, lifetime=3600.0, period=2880.0, expires=w.now + 720.0), Granted)


def test_late_renewals_are_woken_when_the_limit_changes() -> None:
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


def test_rate_limits_of_any_length_hold_across_restarts() -> None:
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


def test_a_rate_limit_that_is_removed_and_put_back_still_counts_what_was_sent() -> None:
    limited = limits("cd", rates={"p": RateLimit(2, 8 * 3600.0)})
    w = World(limited)
    for name in ("c/a", "c/b"):
        w.turn(name)
        w.settle(name, ISSUED)
    w.core.revise(limits("d"), w.now)
    w.core.sweep(w.now + 8.0)
    w.core.revise(limited, w.now)
    assert held(w.turn("c/e")).reason == "rate_limit"
    w.now += 8 * 3600.0 + 1.0
    w.core.revise(limits("d"), w.now)
    w.core.sweep(w.now)
    assert not w.core.registry._removed_rates


def test_targets_of_a_removed_client_no_longer_need_a_part_of_a_shared_limit() -> None:
    shared = {"p": RateLimit(10, 8 * 3600.0)}
    w = World(limits("cd", rates=shared))
    token = {"lifetime": 3600.0, "period": 2880.0, "expires": w.now + 720.0}
    for name in ("d/a", "d/b"):
        w.turn(name, **token)
    assert held(w.turn("c/a", **token)).reason == "rate_limit"
    w.core.revise(limits("c", rates=shared), w.now)
    for name in ("d/a", "d/b"):
        w.core.forget(name, "d", w.now)
    assert isinstance(w.turn("c/a", **token), Granted)


# -- changes ---------------------------------------------------------------------------------------


def test_a_changed_max_concurrency_applies_at_once() -> None:
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


def test_a_client_that_moves_to_another_provider_waits_there_and_frees_its_old_slots() -> None:
    w = world("cd", max_concurrency=1)
    w.turn("c/a")
    w.turn("d/a")
    w.turn("c/b")
    moved = limits("c", max_concurrency=1, provider="https://other.example.com/token").clients
    w.limits = Limits({**w.limits.clients, **moved}, {})
    w.core.revise(w.limits, w.now)
    w.follow()
    w.settle("c/a", ISSUED)
    w.run()
    assert set(w.tickets) == {"c/b", "d/a"}
    w.check()
    w.core.sweep(w.now)
    w.check()


# -- preview ---------------------------------------------------------------------------------------


def test_a_preview_gives_the_answer_of_a_request_and_changes_nothing() -> None:
    w = world(max_concurrency=1)
    assert w.core.preview(ask("c/a"), w.now) is None
    w.turn("c/a")
    assert held(w.core.preview(ask("c/b"), w.now)).reason == "concurrency"
    assert not w.core.waiting.queued
    w.turn("c/b")
    w.settle("c/a", OWN)
    assert w.core.preview(ask("c/b"), w.now) is None
    assert held(w.core.preview(ask("c/a"), w.now)) == Held(w.now + 30.0, "refused", w.now + 30.0)
    w.check()


# -- limits of a config ----------------------------------------------------------------------------


def test_limits_come_from_the_config() -> None:
    slow = replace(PROVIDER, timeout=60.0, max_concurrency=3, refused_limit=RateLimit(2, 30.0))
    limited = replace(CLIENT, name="b", provider=slow, rate_limits=(("client-b", RateLimit(1, 2.0)),))
    found = Limits.of(each.client for each in (target("x"), target("y"), target("z", limited)))
    assert found.rates == {"client-b": RateLimit(1, 2.0)}
    assert found.clients.keys() == {"dnb", "b"}
    b = found.clients["b"]
    assert (b.provider, b.max_concurrency, b.rates, b.deadline) == (PROVIDER.url, 3, ("client-b",), 90.0)
    assert b.refused_limit == RateLimit(2, 30.0)


@pytest.mark.parametrize(
    ("changed", "deadline"),
    [
        pytest.param(replace(CLIENT, provider=replace(PROVIDER, timeout=60.0)), 90.0, id="token-url"),
        # Its metadata is at one of two URLs, and each request has the whole timeout.
        pytest.param(
            replace(CLIENT, provider=replace(PROVIDER, token_url=None, issuer="https://sso.test", timeout=60.0)),
            210.0,
            id="issuer",
        ),
        # A command may run for 10 s.
        pytest.param(replace(CLIENT, client_secret=(COMMAND, replace(COMMAND, at="/bin/b"))), 60.0, id="commands"),
    ],
)
def test_a_ticket_lasts_as_long_as_its_grant_may_take(changed: Client, deadline: float) -> None:
    assert Limits.of([changed]).clients["dnb"].deadline == deadline

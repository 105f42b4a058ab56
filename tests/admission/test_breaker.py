"""Refusals: a circuit breaker per client, targets that are refused on their own, and the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bearerd.admission.breaker import pace
from bearerd.admission.types import Granted, Held
from bearerd.grant.outcome import Outcome
from bearerd.terms import REFUSED_LIMIT, RateLimit
from support.admission import (
    HTML,
    ISSUED,
    NO_ROUTE,
    OTHER_SECRET,
    OWN,
    REFUSED,
    SILENCE,
    TOO_MANY,
    UNSENT,
    World,
    limits,
)


def world(clients: str = "c", **changes: object) -> World:
    return World(limits(clients, **changes))  # type: ignore[arg-type]  # a test's keywords


def held(answer: Granted | Held | None) -> Held:
    assert isinstance(answer, Held), answer
    return answer


def send(w: World, name: str, outcome: Outcome | None) -> float:
    """A whole attempt of a target that is granted one. Returns until when a refusal holds it."""
    assert isinstance(w.turn(name), Granted)
    return w.settle(name, outcome)


def closed(w: World, *names: str) -> None:
    """Let each of these get a token."""
    for name in names:
        send(w, name, ISSUED)


# -- the pace --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worked", "paces"),
    [
        (False, [300, 600, 1200, 2400, 3600, 3600]),
        (True, [30, 60, 120, 240, 300, 600, 1200, 2400, 3600, 3600]),
    ],
)
def test_the_pace_of_refusals_depends_on_whether_the_credentials_ever_worked(worked: bool, paces: list[int]) -> None:
    assert [pace(number, worked=worked) for number in range(1, len(paces) + 1)] == paces
    assert pace(10_000, worked=worked) == 3600.0


def test_a_refused_client_is_probed_at_its_pace_and_not_earlier() -> None:
    w = world(refused_limit=RateLimit(100, 120.0))
    closed(w, "c/a")
    w.now += 3000.0
    for wait in (30.0, 60.0, 120.0, 240.0, 300.0, 600.0):
        send(w, "c/a", REFUSED)
        w.now += wait - 0.001
        assert held(w.turn("c/a")).reason == "refused"
        w.now += 0.001


# -- half-open and closed --------------------------------------------------------------------------


def test_a_client_without_any_token_sends_one_attempt_at_a_time() -> None:
    w = world()
    assert isinstance(w.turn("c/a"), Granted)
    assert held(w.turn("c/b")).reason == "half_open"
    w.settle("c/a", SILENCE)
    w.run()
    assert w.granted == ["c/a", "c/b"]


@pytest.mark.parametrize(("ago", "at_once"), [(0.0, 8), (1.0, 8), (1.001, 4), (60.0, 4), (60.001, 1)])
def test_the_number_of_attempts_in_flight_depends_on_the_age_of_the_last_token(ago: float, at_once: int) -> None:
    w = world()
    closed(w, "c/first")
    w.now += ago
    answers = [w.turn(f"c/{number}") for number in range(12)]
    assert sum(isinstance(answer, Granted) for answer in answers) == at_once


def test_the_first_token_releases_all_others_most_urgent_first() -> None:
    w = world()
    w.turn("c/a")
    w.turn("c/b", expires=w.now + 600.0)
    w.turn("c/c", expires=w.now + 60.0)
    w.turn("c/d")
    w.settle("c/a", ISSUED)
    w.run()
    assert w.granted == ["c/a", "c/d", "c/c", "c/b"]


# -- the client's refusal, and a target's own -------------------------------------------------------


def test_after_a_refusal_the_most_urgent_other_target_probes_next() -> None:
    w = world()
    closed(w, "c/a")
    w.now += 300.0
    send(w, "c/a", REFUSED)
    w.turn("c/a", expires=w.now + 20.0)
    w.turn("c/b", expires=w.now + 900.0)
    w.turn("c/c", expires=w.now + 100.0)
    for expected in ("c/c", "c/b", "c/a"):
        while not w.tickets:
            assert w.jump()
        assert list(w.tickets) == [expected]
        w.settle(expected, REFUSED)
        w.turn(expected)


def test_a_client_that_never_had_a_token_tries_three_targets_2_s_apart_before_its_pace_begins() -> None:
    w = world()
    start = w.now
    for name in ("c/a", "c/b", "c/c", "c/d"):
        w.add(name)
    sent: list[tuple[str, float]] = []
    while len(sent) < 4:
        w.run()
        for name in list(w.tickets):
            sent.append((name, w.now - start))
            w.settle(name, REFUSED)
            w.add(name, failures=1)
        w.jump()
    assert sent == [("c/a", 0.0), ("c/b", 2.0), ("c/c", 4.0), ("c/d", 304.0)]


def test_a_new_client_with_one_target_waits_5_min_after_a_refusal() -> None:
    w = world()
    send(w, "c/a", REFUSED)
    assert held(w.turn("c/a")).until == w.now + 300.0


def test_a_siblings_token_makes_the_refusal_the_targets_own() -> None:
    """L6: 0.1.0 held the others for 15 min, or for ever."""
    w = world()
    send(w, "c/bad", REFUSED)
    w.turn("c/bad")
    w.turn("c/good")
    refused_at = w.now
    w.jump()
    w.settle("c/good", ISSUED)
    w.now += 1.0
    w.run()
    assert held(w.turn("c/bad")).until == refused_at + 30.0
    assert isinstance(w.turn("c/other"), Granted)
    refusal = w.core.refusal("c/bad", "c")
    assert refusal is not None
    assert refusal.own


def test_a_target_refused_on_its_own_has_its_own_pace_and_does_not_hold_siblings() -> None:
    """L6: in 0.1.0 each of its attempts held the whole client for 30 s or more."""
    w = world(refused_limit=RateLimit(100, 120.0))
    send(w, "c/bad", REFUSED)
    w.turn("c/good")
    w.jump()
    w.settle("c/good", ISSUED)
    for wait in (60.0, 120.0, 240.0, 300.0, 600.0):
        w.turn("c/bad")
        while "c/bad" not in w.tickets:
            w.jump()
        closed(w, "c/good")
        until = w.settle("c/bad", REFUSED)
        assert until == w.now + wait
        closed(w, "c/good", "c/other")


def test_a_refusal_is_the_targets_own_at_once_if_a_later_attempt_of_a_sibling_succeeded() -> None:
    w = world()
    closed(w, "c/first")
    w.turn("c/bad")
    w.now += 0.1
    closed(w, "c/good")
    assert w.settle("c/bad", REFUSED) == w.now + 30.0
    closed(w, "c/other")


def test_a_token_requested_before_does_not_excuse_a_later_refusal() -> None:
    w = world()
    closed(w, "c/good")
    send(w, "c/bad", REFUSED)
    assert held(w.turn("c/good")).reason == "refused"


def test_a_targets_own_earlier_token_does_not_excuse_its_refusal() -> None:
    w = world()
    closed(w, "c/a")
    send(w, "c/a", REFUSED)
    assert held(w.turn("c/b")).reason == "refused"


def test_a_code_for_one_target_does_not_open_the_breaker_and_half_opens_an_open_one() -> None:
    w = world()
    send(w, "c/a", REFUSED)
    w.turn("c/b")
    w.jump()
    w.settle("c/b", OWN)
    assert isinstance(w.turn("c/c"), Granted)
    assert held(w.turn("c/b")).until == w.now + 30.0


@pytest.mark.parametrize("outcome", [SILENCE, TOO_MANY, HTML, None])
def test_an_unclear_outcome_after_a_refusal_changes_neither_pace_nor_reason(outcome: Outcome | None) -> None:
    """L4: in 0.1.0 a late refusal was a timeout, and its reason was forgotten."""
    w = world()
    closed(w, "c/a")
    w.now += 300.0
    send(w, "c/a", REFUSED)
    for _ in range(3):
        w.now += 30.0
        send(w, "c/a", outcome)
        refusal = w.core.refusal("c/a", "c")
        assert refusal is not None
        assert (refusal.outcome, refusal.attempts, refusal.next_probe) == (REFUSED, 1, w.now + 30.0)
        assert held(w.turn("c/a")).reason == "refused"
        w.now += 60.0  # the ledger counts it, because it may have been refused
        w.turn("c/a")
        if "c/a" in w.tickets:
            w.settle("c/a", NO_ROUTE)


@pytest.mark.parametrize("outcome", [UNSENT, NO_ROUTE])
def test_an_attempt_that_never_reached_the_endpoint_leaves_the_probe_to_the_next(outcome: Outcome) -> None:
    w = world()
    closed(w, "c/a")
    w.now += 300.0
    send(w, "c/a", REFUSED)
    w.turn("c/a")
    w.turn("c/b")
    w.now += 30.0
    w.run()
    w.settle("c/b", outcome)
    w.run()
    assert list(w.tickets) == ["c/a"]


def test_as_long_as_one_target_alone_was_refused_little_is_said_of_its_siblings() -> None:
    w = world()
    closed(w, "c/a", "c/b")
    w.now += 300.0
    for _ in range(3):
        send(w, "c/a", REFUSED)
        w.now += 300.0
    refusals = [w.core.refusal(name, "c") for name in ("c/a", "c/b")]
    assert [refusal.attempts for refusal in refusals if refusal is not None] == [3, 1]
    send(w, "c/b", REFUSED)
    refusals = [w.core.refusal(name, "c") for name in ("c/a", "c/b", "c/new")]
    assert [refusal.attempts for refusal in refusals if refusal is not None] == [4, 4, 4]


def test_refusals_of_attempts_in_flight_together_count_once() -> None:
    w = world()
    closed(w, "c/first")
    for number in range(5):
        w.turn(f"c/{number}")
    for number in range(5):
        w.settle(f"c/{number}", REFUSED)
    refusal = w.core.refusal("c/0", "c")
    assert refusal is not None
    assert (refusal.attempts, refusal.next_probe) == (1, w.now + 30.0)
    w.now += 30.0
    assert isinstance(w.turn("c/first"), Granted), "they take no room from the probe"


def test_offers_are_void_after_the_first_refusal() -> None:
    w = world(max_concurrency=2)
    closed(w, "c/first")
    for name in ("c/a", "c/b", "c/d", "c/e"):
        w.turn(name)
    w.settle("c/a", SILENCE)  # offers its slot
    assert w.core.waiting.offers.keys() == {"c/d"}
    w.settle("c/b", REFUSED)
    w.run()
    assert not w.tickets


def test_another_secret_is_tried_after_a_second_and_does_not_lengthen_the_pace() -> None:
    w = world()
    closed(w, "c/a")
    w.now += 300.0
    assert send(w, "c/a", OTHER_SECRET) == w.now + 1.0
    w.now += 1.0
    assert send(w, "c/a", REFUSED) == w.now + 30.0


# -- the ledger ------------------------------------------------------------------------------------


def refused_until(w: World, seconds: float, outcome: Outcome | None = REFUSED) -> int:
    """Let every target send as soon as it may, and refuse it. Returns the number of attempts."""
    end, before = w.now + seconds, len(w.log)
    while w.now < end:
        w.run()
        for name in list(w.tickets):
            w.settle(name, outcome)
            w.turn(name)
        w.check()
        if not w.alarms or min(w.alarms.values()) > end:
            break
        w.jump()
    return len(w.log) - before


def test_ten_targets_refused_on_their_own_send_three_attempts_in_2_min() -> None:
    """With a pace of their own and without the ledger, they sent 28."""
    w = world()
    for number in range(10):
        closed(w, "c/good")
        send(w, f"c/{number}", OWN)
        w.turn(f"c/{number}")
    w.log.clear()
    assert refused_until(w, 119.0, OWN) <= 3


@pytest.mark.parametrize(
    ("limit", "ordinary"), [(RateLimit(4, 120.0), 3), (RateLimit(2, 60.0), 1), (RateLimit(1, 60.0), 1)]
)
def test_one_refused_attempt_is_reserved_for_changed_credentials(limit: RateLimit, ordinary: int) -> None:
    w = world(refused_limit=limit)
    for number in range(10):
        w.add(f"c/{number}")
    assert refused_until(w, min(50.0, limit.window - 1.0)) == ordinary
    w.core.forgive("c", w.now)
    w.follow()
    assert refused_until(w, 1.0) == limit.count - ordinary
    w.core.forgive("c", w.now)  # a second change finds the reserved attempt used
    w.follow()
    assert refused_until(w, 1.0) == 0


def test_the_most_urgent_target_tries_changed_credentials_at_once() -> None:
    w = world()
    w.add("c/a")
    w.add("c/b")
    w.add("c/c", expires=w.now + 200.0)
    refused_until(w, 20.0)
    w.core.forgive("c", w.now)
    w.follow()
    w.run()
    assert len(w.tickets) == 1
    w.settle(next(iter(w.tickets)), ISSUED)
    w.run()
    assert len(w.tickets) == 2


def test_a_refusal_of_old_credentials_does_not_affect_new_ones() -> None:
    w = world()
    w.turn("c/a")
    w.core.forgive("c", w.now)
    w.turn("c/b")
    assert list(w.tickets) == ["c/a", "c/b"], "the old attempt does not hold the new one"
    w.settle("c/a", REFUSED)
    assert w.core.refusal("c/a", "c") is None
    w.settle("c/b", ISSUED)
    closed(w, "c/a")


def test_a_successful_attempt_is_cleared_from_the_ledger() -> None:
    w = world()
    for _ in range(20):
        closed(w, "c/a")
        w.now += 61.0


def test_a_last_attempt_passes_the_breaker_but_not_the_ledger() -> None:
    w = world()
    closed(w, "c/a")
    w.now += 300.0
    send(w, "c/a", REFUSED)
    for name in ("c/b", "c/d"):
        assert held(w.turn(name, expires=w.now + 20.0)).reason == "refused"
        assert isinstance(w.turn(name, last_attempt=True), Granted)
        w.settle(name, REFUSED)
    assert held(w.turn("c/e", expires=w.now + 20.0, last_attempt=True)).reason == "refused_limit"


def test_breakers_of_clients_are_independent() -> None:
    w = world("cd")
    send(w, "c/a", REFUSED)
    closed(w, "d/a")


def test_a_client_has_its_own_refused_limit() -> None:
    w = world("cd")
    few = replace(w.limits.clients["d"], refused_limit=RateLimit(2, 120.0))
    w.limits = replace(w.limits, clients={**w.limits.clients, "d": few})
    w.core.revise(w.limits, w.now)
    for client in "cd":
        for number in range(5):
            w.add(f"{client}/{number}")
    refused_until(w, 20.0)
    assert [sum(attempt.client == client for attempt in w.log) for client in "cd"] == [3, 1]


# -- over restarts ---------------------------------------------------------------------------------


def test_a_process_killed_in_each_attempt_sends_at_most_four_in_2_min() -> None:
    """L9: 0.1.0 sent 14 in 57 s."""
    w = world()
    w.add("c/a")
    sent = 0
    for _ in range(57):
        w.run()
        sent += len(w.tickets)
        w.restart(after=1.0)
        w.check()
    assert sent <= 4


def test_a_refused_client_keeps_its_pace_and_reason_over_a_restart() -> None:
    w = world()
    closed(w, "c/a")
    w.now += 300.0
    send(w, "c/a", REFUSED)
    probe_at = w.now + 30.0
    w.restart(after=10.0)
    refusal = w.core.refusal("c/a", "c")
    assert refusal is not None
    assert (refusal.outcome, refusal.attempts, refusal.next_probe) == (REFUSED, 1, probe_at)
    assert held(w.turn("c/a")).until == probe_at
    w.turn("c/b")
    w.now = probe_at
    w.run()
    assert list(w.tickets) == ["c/b"], "each time another target"


def test_a_target_refused_on_its_own_stays_so_over_restarts() -> None:
    w = world()
    closed(w, "c/good")
    until = send(w, "c/bad", OWN)
    w.restart(after=1.0)
    w.restart(after=1.0)
    assert held(w.turn("c/bad")).until == until
    closed(w, "c/good")


def test_cleared_refusals_are_not_restored() -> None:
    w = world()
    send(w, "c/a", REFUSED)
    w.core.forgive("c", w.now)
    w.follow()
    w.restart()
    assert w.core.refusal("c/a", "c") is None
    closed(w, "c/a")
    w.restart()
    assert [entry[0] for _, entry in w.journal] == ["refused"]


@pytest.mark.parametrize("worked", [True, False])
def test_a_client_that_is_removed_and_put_back_is_tried_at_once_and_its_refusals_still_count(*, worked: bool) -> None:
    w = world("cd")
    if worked:
        closed(w, "c/a")
    for _ in range(REFUSED_LIMIT.count):
        send(w, "c/a", REFUSED)
        w.core.revise(limits("d"), w.now)
        assert held(w.core.request(w.asks["c/a"], w.now)).reason == "unknown_client"
        w.core.sweep(w.now + 8.0)
        w.core.revise(limits("cd"), w.now)
        assert w.core.refusal("c/a", "c") is None
    assert held(w.turn("c/a")).reason == "refused_limit"

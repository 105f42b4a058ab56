"""When a target attempts next."""

from __future__ import annotations

from math import inf

from bearerd.admission.types import Held
from bearerd.lifecycle.next_attempt import NextAttempt


def obtained(now: float = 0.0, due: float = 100.0) -> NextAttempt:
    """A token that arrived, whose refresh is due at that time."""
    timing = NextAttempt()
    timing.succeeded(now, due)
    timing.extended()
    return timing


def test_the_first_attempt_is_due_at_once() -> None:
    timing = NextAttempt()
    assert (timing.at(None), timing.untried, timing.requested, timing.may_plan_last()) == (0.0, True, False, True)
    timing.requested = True
    assert timing.at(None) == 0.0
    timing.now(0.5)
    assert timing.at(None) == 0.5
    timing.failed(1.0, wait=10.0)
    assert not timing.untried


def test_it_is_due_when_its_refresh_is_and_on_request_a_second_after_the_last_attempt() -> None:
    timing = obtained()
    assert timing.at(None) == 100.0
    timing.requested = True
    assert timing.at(None) == 1.0
    timing.begun(1.0)
    timing.succeeded(1.0, 101.0)
    assert timing.at(None) == 101.0


def test_a_request_does_not_shorten_the_wait_after_a_failure() -> None:
    timing = obtained()
    timing.failed(50.0, wait=30.0)
    timing.requested = True
    assert timing.at(None) == 80.0


def test_a_cause_that_is_gone_ends_the_wait_but_a_second_passes_between_two_attempts() -> None:
    timing = obtained()
    timing.failed(50.0, wait=30.0)
    timing.now(50.1)
    assert timing.at(None) == 51.0
    timing.now(60.0)
    assert timing.at(None) == 60.0


def test_a_held_target_requests_again_when_admission_says() -> None:
    timing = obtained()
    assert timing.at(Held(inf, "concurrency", again=700.0)) == 700.0


def test_one_last_attempt_is_made_before_expiry_however_long_the_wait() -> None:
    timing = obtained()
    timing.failed(100.0, wait=600.0)
    assert timing.may_plan_last()
    timing.plan_last(100.0, expires=200.0, dice=0.0)
    assert timing.at(None) == 185.0
    assert not timing.is_last(184.0)
    assert timing.is_last(185.0)
    timing.begun(185.0)
    timing.failed(186.0, wait=600.0)
    assert not timing.may_plan_last()
    assert timing.at(None) == 786.0
    timing.extended()
    assert timing.may_plan_last()


def test_a_last_attempt_that_admission_holds_too_waits_for_admission() -> None:
    timing, held = obtained(), Held(inf, "rate_limit", again=700.0)
    timing.plan_last(100.0, expires=200.0, dice=0.0)
    assert timing.at(held) == 185.0
    timing.held_back(150.0)
    assert timing.at(held) == 185.0
    timing.held_back(185.0)
    assert timing.at(held) == 700.0


def test_the_last_attempt_before_expiry_also_comes_a_second_after_another_one() -> None:
    timing = obtained()
    timing.failed(60.0, wait=30.0)
    timing.plan_last(60.0, expires=100.0, dice=0.0)
    assert timing.at(None) == 85.0
    timing.failed(84.6, wait=10.0)
    assert timing.at(None) == 85.6


def test_another_due_time_also_leaves_a_second_after_the_last_attempt() -> None:
    timing = obtained(now=10.0)
    timing.rescheduled(10.1)
    assert timing.at(None) == 11.0
    timing.rescheduled(50.0)
    assert timing.at(None) == 50.0


def test_a_token_of_another_daemon_ends_a_request_and_gets_its_own_last_attempt() -> None:
    timing = obtained()
    timing.requested = True
    timing.plan_last(50.0, 100.0, 0.0)
    timing.begun(90.0)
    assert not timing.may_plan_last()
    timing.requested = True
    timing.taken(91.0, 191.0)
    assert (timing.requested, timing.due, timing.may_plan_last()) == (False, 191.0, True)


def test_a_token_of_another_daemon_also_leaves_a_second_after_the_last_attempt() -> None:
    timing = obtained(now=10.0)
    timing.taken(10.2, 10.3)
    assert timing.at(None) == 11.0

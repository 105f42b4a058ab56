from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.outcome import Failure, Malformed, RateLimited, Refused, Transient, Unsent
from bearerd.lifecycle import policy
from bearerd.model import RefreshBefore
from bearerd.terms import Instant
from support.clock import START
from support.targets import token

SHARE = RefreshBefore(share=0.2)
MINUTE = RefreshBefore(seconds=60)
ALMOST = math.nextafter(1.0, 0.0)
"""The highest random draw."""


@pytest.mark.parametrize(
    ("lifetime", "refresh_before", "least", "expected"),
    [
        pytest.param(3600, SHARE, 0, 720, id="a share of the lifetime"),
        pytest.param(301, SHARE, 0, 60.2, id="a share just over 60 s"),
        pytest.param(300, SHARE, 0, 60, id="a share of exactly 60 s"),
        pytest.param(299, SHARE, 0, 60, id="a share below 60 s is 60 s"),
        pytest.param(121, SHARE, 0, 60, id="60 s just below half"),
        pytest.param(120, SHARE, 0, 60, id="60 s is exactly half"),
        pytest.param(119, SHARE, 0, 59.5, id="60 s would be over half"),
        pytest.param(3600, MINUTE, 0, 60, id="exactly a duration"),
        pytest.param(40, RefreshBefore(seconds=5), 0, 5, id="a duration below 60 s is meant"),
        pytest.param(100, RefreshBefore(seconds=50), 0, 50, id="a duration of exactly half"),
        pytest.param(99, RefreshBefore(seconds=50), 0, 49.5, id="a duration over half"),
        pytest.param(3600, MINUTE, 600, 600, id="a reader's cache is longer than the lead"),
        pytest.param(3600, SHARE, 600, 720, id="a reader's cache is shorter than the lead"),
        pytest.param(1000, MINUTE, 600, 500, id="a reader's cache does not fit the lifetime"),
        pytest.param(10, SHARE, 0, 5, id="a short token"),
        pytest.param(10, RefreshBefore(seconds=0.5), 0, 0.5, id="a duration below a second"),
        pytest.param(0, SHARE, 0, 0, id="nothing"),
        pytest.param(-5, MINUTE, 60, 0, id="negative"),
    ],
)
def test_the_lead(lifetime: float, refresh_before: RefreshBefore, least: float, expected: float) -> None:
    assert policy.lead(lifetime, refresh_before, least) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lifetime", "dice", "expected"),
    [
        pytest.param(3600, 0.0, 2880, id="no jitter"),
        pytest.param(3600, 0.5, 2844, id="half the jitter, earlier"),
        pytest.param(3600, ALMOST, 2808, id="all the jitter is a tenth of the lead"),
        pytest.param(7199, 0.0, 5759.2, id="the first provider's other lifetime"),
        pytest.param(2, 0.0, 1, id="two seconds"),
        pytest.param(2, ALMOST, 1, id="jitter never brings it under a second after the last turn"),
        pytest.param(1, 0.0, 1, id="one second"),
        pytest.param(0.001, 0.0, 1, id="tiny"),
        pytest.param(0, 0.0, 1, id="zero"),
        pytest.param(-3600, 0.0, 1, id="negative"),
    ],
)
def test_a_refresh_is_due_its_lead_before_the_expiry(lifetime: float, dice: float, expected: float) -> None:
    due = policy.due_after_issue(token(lifetime=lifetime), SHARE, 0, START.boot, dice, math.inf)
    assert due - START.boot == pytest.approx(expected)


def test_the_jitter_is_a_tenth_of_the_lead_that_a_readers_cache_needs() -> None:
    due = policy.due_after_issue(token(lifetime=3600), SHARE, 1000, START.boot, 0.5, math.inf)
    assert due - START.boot == pytest.approx(3600 - 1000 - 50)


@pytest.mark.parametrize(
    ("lifetime", "least", "max_age", "expected"),
    [
        (3600, 0, math.inf, 2880),
        (3600, 1000, math.inf, 2600),
        (3600, 0, 60, 60),
        (1, 0, math.inf, 0.5),
        (-5, 0, 60, 0),
    ],
)
def test_the_planned_age_at_a_refresh(lifetime: float, least: float, max_age: float, expected: float) -> None:
    assert policy.planned(lifetime, SHARE, least, max_age) == pytest.approx(expected)


@given(
    lifetime=st.floats(-1e9, 1e9),
    share=st.floats(0.001, 0.5),
    staleness=st.floats(0, 1e6),
    dice=st.floats(0, 1, exclude_max=True),
)
def test_a_refresh_is_at_least_a_second_away_and_before_expiry_if_possible(
    lifetime: float, share: float, staleness: float, dice: float
) -> None:
    refresh_before = RefreshBefore(share=share)
    due = policy.due_after_issue(token(lifetime=lifetime), refresh_before, staleness, START.boot, dice, math.inf)
    assert due >= START.boot + 1
    assert due <= START.boot + max(lifetime, 1) + 1e-3


@pytest.mark.parametrize(
    ("remaining", "expected"),
    [(720.0, 360.0), (2.1, 1.05), (2.0, 1.0), (1.9, 1.9), (1.0, 1.0), (0.9, 1.0), (0.0, 1.0), (-60.0, 1.0)],
)
def test_the_same_token_is_requested_half_way_to_its_expiry_and_finally_at_it(
    remaining: float, expected: float
) -> None:
    assert policy.halfway(START.boot, START.boot + remaining) - START.boot == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lifetime", "max_age", "dice", "expected"),
    [
        pytest.param(3600, 86400, 0.0, 2880, id="the lead comes first"),
        pytest.param(30 * 86400, 86400, 0.0, 86400, id="30 days: after a day"),
        pytest.param(30 * 86400, 86400, ALMOST, 0.9 * 86400, id="and up to a tenth of it earlier"),
        pytest.param(30 * 86400, math.inf, 0.0, 24 * 86400, id="never: by the lead"),
        pytest.param(3600, 60, 0.0, 60, id="a minute"),
        pytest.param(3600, 0.5, 0.0, 1, id="never under a second"),
    ],
)
def test_a_token_is_refreshed_after_max_age_at_the_latest(
    lifetime: float, max_age: float, dice: float, expected: float
) -> None:
    due = policy.due_after_issue(token(lifetime=lifetime), SHARE, 0, START.boot, dice, max_age)
    assert due - START.boot == pytest.approx(expected)


TRANSIENT = Transient("reset")
LIMITED = RateLimited("429")


@pytest.mark.parametrize(
    ("failure", "count", "remaining", "dice", "expected"),
    [
        pytest.param(TRANSIENT, 1, 0, ALMOST, 1, id="first: full jitter under 1 s, and 1 s at least"),
        pytest.param(TRANSIENT, 2, 0, ALMOST, 2, id="second"),
        pytest.param(TRANSIENT, 6, 0, ALMOST, 32, id="sixth"),
        pytest.param(TRANSIENT, 7, 0, ALMOST, 60, id="seventh would be 64: the ceiling"),
        pytest.param(TRANSIENT, 7, 0, 0.5, 30, id="jitter is full"),
        pytest.param(TRANSIENT, 7, 0, 0.0, 1, id="the lowest throw is 1 s"),
        pytest.param(TRANSIENT, 5000, 0, ALMOST, 60, id="days later"),
        pytest.param(TRANSIENT, 7, 240, ALMOST, 60, id="a quarter of what remains is the ceiling"),
        pytest.param(TRANSIENT, 7, 239, ALMOST, 59.75, id="a quarter of what remains is under the ceiling"),
        pytest.param(TRANSIENT, 7, 4, ALMOST, 1, id="a quarter is 1 s"),
        pytest.param(TRANSIENT, 7, 3, ALMOST, 1, id="a quarter is under 1 s"),
        pytest.param(TRANSIENT, 7, 1, ALMOST, 1, id="a second remains"),
        pytest.param(Transient("503", retry_after=120), 1, 40, 0, 120, id="never against a Retry-After"),
        pytest.param(Transient("503", retry_after=30), 1, 0, ALMOST, 36, id="up to a fifth later, each at its moment"),
        pytest.param(Transient("503", retry_after=5), 7, 0, ALMOST, 60, id="a Retry-After is only a floor"),
        pytest.param(Transient("503", retry_after=0), 9, 0, 0, 1, id="a Retry-After of 0 is 1 s"),
        pytest.param(Transient("503", retry_after=3600), 1, 0, 0, 3600, id="a Retry-After of 1 h"),
        pytest.param(Transient("503", retry_after=3601), 1, 0, 0, 3600, id="a Retry-After over 1 h"),
        pytest.param(RateLimited("429", retry_after=7), 1, 0, 0, 7, id="429 with a Retry-After"),
        pytest.param(RateLimited("429", retry_after=7), 1, 0, ALMOST, 8.4, id="429 up to a fifth later"),
        pytest.param(RateLimited("429", retry_after=7), 5, 0, 0, 16, id="429 with a Retry-After below the backoff"),
        pytest.param(RateLimited("429", retry_after=0), 1, 0, 0, 1, id="429 with a Retry-After of 0"),
        pytest.param(RateLimited("429", retry_after=0), 9, 0, 0, 60, id="429 with a Retry-After of 0, for minutes"),
        pytest.param(RateLimited("429", retry_after=1e9), 1, 0, 0, 3600, id="429 with a huge one"),
        pytest.param(LIMITED, 1, 0, 0, 60, id="429 without one: 60 s at least"),
        pytest.param(LIMITED, 1, 0, ALMOST, 72, id="429 without one: up to a fifth later"),
        pytest.param(LIMITED, 1, 8, 0, 60, id="also when the token expires before"),
        pytest.param(LIMITED, 2, 0, 0, 120, id="429 again"),
        pytest.param(LIMITED, 99, 0, 0, 600, id="429 for ever"),
        pytest.param(Malformed("HTML"), 1, 0, 0, 60, id="malformed"),
        pytest.param(Malformed("HTML"), 2, 0, 0, 120, id="malformed again"),
        pytest.param(Malformed("HTML"), 4, 0, 0, 480, id="malformed: the fourth"),
        pytest.param(Malformed("HTML"), 5, 0, 0, 600, id="malformed: the ceiling"),
        pytest.param(Unsent("no secret"), 1, 0, 0, 10, id="no secret: nobody was asked"),
        pytest.param(Unsent("no secret"), 9, 0, 0, 60, id="no secret: the ceiling"),
    ],
)
def test_the_wait_after_a_failure(failure: Failure, count: int, remaining: float, dice: float, expected: float) -> None:
    assert policy.wait_after(failure, count, remaining, dice=dice) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("remaining", "dice", "expected"),
    [(0.0, 0.5, 15.0), (0.0, 0.0, 0.0), (3600.0, 0.5, 15.0), (20.0, 0.5, 5.0), (20.0, 0.999, 9.99), (1.0, 0.5, 0.25)],
)
def test_first_attempts_after_a_start_are_spread_before_tokens_expire(
    remaining: float, dice: float, expected: float
) -> None:
    assert policy.first_attempt(remaining, 30.0, dice) == pytest.approx(expected)
    assert policy.first_attempt(remaining, 0.0, dice) == 0.0


def test_a_thousand_daemons_that_start_together_do_not_ask_in_the_same_second() -> None:
    dice = Random(16)
    seconds = Counter(int(policy.first_attempt(0.0, 30.0, dice.random())) for _ in range(1000))
    assert set(seconds) == set(range(30))
    assert max(seconds.values()) < 60  # 33 on average


@pytest.mark.parametrize(
    ("remaining", "dice", "expected"),
    [
        pytest.param(720, 0.0, 705, id="15 s before its expiry"),
        pytest.param(720, 0.5, 697.5, id="or some time earlier"),
        pytest.param(720, ALMOST, 690, id="30 s at most"),
        pytest.param(31, ALMOST, 1, id="a second from now"),
        pytest.param(30, ALMOST, 15, id="too near: half of what remains"),
        pytest.param(15, 0.0, 7.5, id="nearer"),
        pytest.param(2, 0.0, 1, id="a second from now, at half"),
        pytest.param(1.9, 0.0, None, id="too late"),
        pytest.param(-60, 0.0, None, id="expired already"),
    ],
)
def test_one_more_attempt_is_made_before_expiry(remaining: float, dice: float, expected: float | None) -> None:
    at = policy.last_attempt(START.boot, START.boot + remaining, dice)
    assert (None if at is None else at - START.boot) == (None if expected is None else pytest.approx(expected))


def test_the_next_moment_is_the_earliest_and_in_the_future() -> None:
    assert policy.next_moment(10.0, 30.0, None, 20.0, math.inf) == 20.0
    assert policy.next_moment(10.0, None, 5.0) == pytest.approx(10.05)
    assert policy.next_moment(10.0, None) == math.inf


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (4, 8), (5, 10), (50, 10)])
def test_failed_writes_are_retried_within_10_s(count: int, expected: float) -> None:
    assert policy.wait_after_publish_fault(count) == expected


AFTER_600 = math.nextafter(600.0, math.inf)
BEFORE_600 = math.nextafter(600.0, 0.0)
TINY = math.nextafter(0.0, 1.0)
"""The least that may be left of a token."""


@pytest.mark.parametrize(
    ("failure", "count", "remaining", "lasted", "expected"),
    [
        pytest.param(TRANSIENT, 1, 0, 600, True, id="no token, for 600 s"),
        pytest.param(TRANSIENT, 99, 0, BEFORE_600, False, id="no token, for a tick less"),
        pytest.param(TRANSIENT, 1, 0, AFTER_600, True, id="no token, for a tick more"),
        pytest.param(TRANSIENT, 1, 0, 0, False, id="no token, at a start before the network is there"),
        pytest.param(TRANSIENT, 99, TINY, 1e6, False, id="it passes while a token is good, if barely"),
        pytest.param(TRANSIENT, 1, -1, 600, True, id="one that has expired is none"),
        pytest.param(LIMITED, 1, 0, 600, True, id="limited, no token, for 600 s"),
        pytest.param(LIMITED, 99, 0, BEFORE_600, False, id="limited, no token, for a tick less"),
        pytest.param(LIMITED, 99, TINY, 1e6, False, id="limited, while a token is good"),
        pytest.param(Refused("401"), 1, 0, 0, True, id="refused, no token"),
        pytest.param(Refused("401"), 1, TINY, 1e6, False, id="refused once, while a token is good: a load balancer"),
        pytest.param(Refused("401"), 2, 3600, 0, True, id="refused twice"),
        pytest.param(Refused("400", whole_client=False), 1, 0, 0, True, id="refused alone, no token"),
        pytest.param(Refused("400", whole_client=False), 2, TINY, 0, True, id="refused alone, twice"),
        pytest.param(Refused("401", another_secret=True), 99, 0, 1e6, False, id="another secret is tried in a second"),
        pytest.param(Malformed("HTML"), 1, 0, 0, True, id="malformed, no token"),
        pytest.param(Malformed("HTML"), 1, TINY, 1e6, False, id="malformed once"),
        pytest.param(Malformed("HTML"), 2, TINY, 0, True, id="malformed twice"),
        pytest.param(Unsent("no secret"), 1, 0, 0, True, id="no secret, no token"),
        pytest.param(Unsent("no secret"), 1, TINY, 1e6, False, id="no secret once"),
        pytest.param(Unsent("no secret"), 2, TINY, 0, True, id="no secret twice"),
    ],
)
def test_when_a_token_counts_as_lost(
    failure: Failure, count: int, remaining: float, lasted: float, expected: bool
) -> None:
    assert policy.is_lost(failure, count, remaining, lasted) is expected


@pytest.mark.parametrize(
    ("step", "remaining", "stepped", "disagreed"),
    [
        pytest.param(5.0, 3000, False, False, id="5 s forward is the clock being kept right"),
        pytest.param(5.1, 3000, True, False, id="over 5 s forward"),
        pytest.param(-5.1, 3000, True, False, id="over 5 s back"),
        pytest.param(30.0, 3000, True, False, id="30 s forward: the boot clock is right"),
        pytest.param(30.1, 2969.9, True, True, id="over 30 s forward: the earlier counts"),
        pytest.param(-30.1, 3000, True, True, id="over 30 s back: the earlier is the boot clock's"),
        pytest.param(7200, -4200, True, True, id="two hours forward: expired, for all one knows"),
        pytest.param(-7200, 3000, True, True, id="two hours back"),
    ],
)
def test_the_earlier_expiry_counts_after_a_clock_step(
    step: float, remaining: float, stepped: bool, disagreed: bool
) -> None:
    now = Instant(START.wall + 600 + step, START.boot + 600)
    dated = policy.redate(token(), now)
    assert (dated.stepped, dated.disagreed) == (stepped, disagreed)
    assert dated.token.expires.boot - now.boot == pytest.approx(remaining)
    if stepped:
        assert dated.token.expires.wall - now.wall == pytest.approx(remaining)
        again = policy.redate(dated.token, now)
        assert not again.stepped


def test_only_the_times_of_a_token_are_corrected() -> None:
    held = token(token_type="bearer", scope="bci", extra='{"jti":"1"}')
    dated = policy.redate(held, Instant(START.wall + 620, START.boot + 600))
    assert dated.token == replace(held, obtained=Instant(START.wall + 20, START.boot))
    assert policy.redate(held, START) == policy.Dated(held, disagreed=False, stepped=False)


def test_the_wall_clock_counts_after_a_reboot() -> None:
    # 10 minutes later by the wall clock; the boot clock was reset.
    dated = policy.redate(token(), Instant(START.wall + 600, 20.0))
    assert dated.disagreed
    assert dated.token.expires.boot - 20.0 == pytest.approx(3000)


def test_a_clock_set_back_to_1970_does_not_extend_a_token() -> None:
    dated = policy.redate(token(), Instant(0.0, 20.0))
    assert dated.disagreed
    assert dated.token.expires.boot - 20.0 <= 3600

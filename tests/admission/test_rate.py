"""One rate limit: it holds over any window, and an attempt counts until one window after its reply."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.admission.rate import Kind, Rate, late_margin
from bearerd.terms import RateLimit
from support.admission import Attempt, most_within

HOURS = 3600.0


def replied(limit: RateLimit, *moments: float) -> Rate:
    rate = Rate(limit)
    for moment in moments:
        rate.send(moment)
        rate.replied(moment)
    return rate


@pytest.mark.parametrize(
    ("now", "opens"),
    [(0.0, 10.0), (9.999, 10.0), (10.0, 10.0), (11.0, 11.0)],
    ids=["full", "tick", "boundary", "after"],
)
def test_an_attempt_counts_until_one_window_after_its_reply(now: float, opens: float) -> None:
    assert replied(RateLimit(1, 10.0), 0.0).earliest(now, "first") == opens


def test_an_attempt_without_a_reply_counts_as_long_as_it_is_in_flight() -> None:
    rate = Rate(RateLimit(2, 10.0))
    rate.send(0.0)
    assert rate.earliest(100.0, "first") == 100.0
    rate.send(100.0)
    assert rate.earliest(200.0, "first") == inf
    rate.replied(200.0)
    assert rate.earliest(205.0, "first") == 210.0


def test_an_attempt_that_never_reached_the_endpoint_is_given_back() -> None:
    rate = Rate(RateLimit(1, 10.0))
    rate.give_back(rate.send(0.0))
    assert rate.earliest(0.0, "first") == 0.0
    rate = Rate(RateLimit(2, 10.0))
    rate.send(0.0)
    rate.give_back(rate.send(0.0))
    rate.send(0.0)
    assert rate.earliest(0.0, "first") == inf


@pytest.mark.parametrize(("count", "used", "opens"), [(4, 1, 0.0), (4, 2, 10.0), (5, 2, 10.0), (1, 0, 10.0)])
def test_requests_before_the_due_time_may_use_half_of_the_limit(count: int, used: int, opens: float) -> None:
    assert replied(RateLimit(count, 10.0), *[0.0] * used).earliest(0.0, "requested") == opens


def scarce(count: int, targets: int = 3) -> Rate:
    rate = Rate(RateLimit(count, 8 * HOURS))
    for number in range(targets):
        rate.expect(f"c/{number}", lifetime=HOURS, period=0.8 * HOURS)
    return rate


@pytest.mark.parametrize(("count", "late", "spaced"), [(30, False, False), (29, True, False), (24, True, True)])
def test_an_insufficient_limit_makes_renewals_late_and_then_evenly_spaced(count: int, late: bool, spaced: bool) -> None:
    rate = scarce(count)  # three 1 h tokens: 30 renewals in 8 h as planned, 24.2 at the latest
    assert (rate.late, rate.spaced) == (late, spaced)


def test_a_scarce_limit_lets_first_tokens_go_at_once_and_spaces_renewals() -> None:
    rate = scarce(10)
    for _ in range(3):
        assert rate.earliest(0.0, "first") == 0.0
        rate.send(0.0)
        rate.replied(0.0)
    assert rate.earliest(0.0, "first") == 0.0
    assert rate.earliest(60.0, "renewal") == 0.8 * HOURS
    assert rate.earliest(0.8 * HOURS, "renewal") == 0.8 * HOURS


def test_the_first_of_evenly_spaced_renewals_goes_at_once() -> None:
    assert scarce(10).earliest(5.0, "renewal") == 5.0


def test_renewals_are_spaced_from_the_last_attempt_that_was_sent() -> None:
    rate = scarce(10)
    rate.send(100.0)
    sent = rate.send(200.0)
    assert rate.earliest(200.0, "renewal") == 200.0 + 0.8 * HOURS
    rate.give_back(sent)
    assert rate.earliest(200.0, "renewal") == 100.0 + 0.8 * HOURS
    former = rate.send(300.0)
    rate.send(400.0)
    rate.give_back(former)
    assert rate.earliest(400.0, "renewal") == 400.0 + 0.8 * HOURS


def test_renewals_are_spaced_from_the_last_reply_of_an_earlier_process() -> None:
    rate = scarce(10)
    rate.restore([300.0, 100.0, 200.0], 1000.0)
    assert rate.earliest(1000.0, "renewal") == 900.0 + 0.8 * HOURS


def fitting(lifetime: float = 0.0, period: float = 0.0) -> Rate:
    """A limit of one attempt in 100 s, and one target."""
    rate = Rate(RateLimit(1, 100.0))
    rate.expect("c/t", lifetime, period)
    return rate


@pytest.mark.parametrize(("period", "late"), [(100.0, False), (99.9, True), (0.5, True), (0.0, False)])
def test_renewals_are_late_if_the_limit_does_not_cover_their_period(period: float, late: bool) -> None:
    assert fitting(period=period).late == late


@pytest.mark.parametrize(
    ("lifetime", "spaced"), [(122.5, False), (122.4, True), (23.0, True), (22.5, False), (22.0, False), (0.0, False)]
)
def test_renewals_are_spaced_if_the_limit_does_not_cover_those_made_15_to_30_s_before_expiry(
    lifetime: float, spaced: bool
) -> None:
    assert fitting(lifetime=lifetime).spaced == spaced


@pytest.mark.parametrize("lifetime", [0.0, 22.0, 22.5])
@pytest.mark.parametrize("more", [0.0, 1.5e-8])
def test_a_target_with_an_unknown_lifetime_demands_nothing(lifetime: float, more: float) -> None:
    rate = fitting(lifetime=122.5 - more, period=100.0 - more)
    rate.forget("c/unknown")
    assert (rate.late, rate.spaced) == (more > 0, more > 0)
    rate.expect("c/short", lifetime, 0.0)
    rate.forget("c/unknown")
    assert (rate.late, rate.spaced) == (more > 0, more > 0)


def test_a_removed_target_demands_nothing() -> None:
    rate = fitting(lifetime=60.0, period=48.0)
    assert (rate.late, rate.spaced) == (True, True)
    rate.forget("c/t")
    assert (rate.late, rate.spaced) == (False, False)


def test_removed_targets_and_longer_lifetimes_reduce_the_demand() -> None:
    rate = scarce(10)
    rate.forget("c/0")
    rate.expect("c/1", lifetime=24 * HOURS, period=19 * HOURS)
    assert (rate.late, rate.spaced) == (True, False)
    rate.expect("c/2", lifetime=24 * HOURS, period=19 * HOURS)
    assert (rate.late, rate.spaced) == (False, False)
    rate.forget("c/unknown")


def test_late_renewals_are_spread_over_15_to_30_s_before_expiry() -> None:
    margins = [late_margin(f"c/{number}") for number in range(200)]
    assert all(15.0 <= margin < 30.0 for margin in margins)
    assert min(margins) < 15.5
    assert max(margins) > 29.5


def test_attempts_of_earlier_processes_count() -> None:
    rate = Rate(RateLimit(2, 10.0))
    rate.restore([9.0, 4.0, 11.0], 100.0)
    assert rate.earliest(100.0, "first") == 101.0
    assert sorted(rate.ages(100.0)) == [4.0, 9.0]


def test_an_attempt_counts_while_it_is_in_flight_and_until_one_window_after_its_reply() -> None:
    rate = Rate(RateLimit(2, 10.0))
    assert not rate.counts(0.0)
    rate.send(0.0)
    assert rate.counts(100.0)
    rate.replied(100.0)
    assert rate.counts(109.9)
    assert not rate.counts(110.0)


KINDS: list[Kind] = ["first", "renewal", "requested"]


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 4.0]), st.booleans(), st.sampled_from(KINDS)), max_size=80),
)
def test_no_window_exceeds_the_limit_wherever_the_provider_counts(
    count: int, actions: list[tuple[float, bool, Kind]]
) -> None:
    rate, now = Rate(RateLimit(count, 5.0)), 0.0
    flying: list[float] = []
    log: list[Attempt] = []
    for passed, ends, kind in actions:
        now += passed
        if ends and flying:
            sent = flying.pop(0)
            rate.replied(now)
            log.append(Attempt("c", sent, now, False, True, False))
        elif rate.earliest(now, kind) <= now:
            rate.send(now)
            flying.append(now)
        open_ones = [Attempt("c", sent, inf, False, True, False) for sent in flying]
        assert most_within([*log, *open_ones], 5.0) <= count

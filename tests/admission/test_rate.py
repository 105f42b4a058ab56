"""One rate limit: over any window, until a window after the reply."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.admission.rate import Kind, Rate, late_margin
from bearerd.model import RateLimit
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
def test_an_attempt_counts_for_a_window_after_its_reply(now: float, opens: float) -> None:
    assert replied(RateLimit(1, 10.0), 0.0).opens(now, "first") == opens


def test_without_a_reply_it_counts_for_as_long_as_it_takes() -> None:
    rate = Rate(RateLimit(2, 10.0))
    rate.send(0.0)
    assert rate.opens(100.0, "first") == 100.0
    rate.send(100.0)
    assert rate.opens(200.0, "first") == inf
    rate.replied(200.0)
    assert rate.opens(205.0, "first") == 210.0


def test_what_the_endpoint_never_saw_is_given_back() -> None:
    rate = Rate(RateLimit(1, 10.0))
    rate.give_back(rate.send(0.0))
    assert rate.opens(0.0, "first") == 0.0


@pytest.mark.parametrize(("count", "used", "opens"), [(4, 1, 0.0), (4, 2, 10.0), (5, 2, 10.0), (1, 0, 10.0)])
def test_whoever_asks_before_it_is_due_may_use_half(count: int, used: int, opens: float) -> None:
    assert replied(RateLimit(count, 10.0), *[0.0] * used).opens(0.0, "requested") == opens


def scarce(count: int, targets: int = 3) -> Rate:
    rate = Rate(RateLimit(count, 8 * HOURS))
    for number in range(targets):
        rate.expect(f"c/{number}", lifetime=HOURS, period=0.8 * HOURS)
    return rate


@pytest.mark.parametrize(("count", "late", "spaced"), [(30, False, False), (29, True, False), (24, True, True)])
def test_a_limit_that_does_not_cover_the_renewals_makes_them_late_and_then_spaced(
    count: int, late: bool, spaced: bool
) -> None:
    rate = scarce(count)  # three 1 h tokens: 30 renewals in 8 h as planned, 24.2 at the latest
    assert (rate.late, rate.spaced) == (late, spaced)


def test_under_a_scarce_limit_first_tokens_go_at_once_and_renewals_evenly_spaced() -> None:
    rate = scarce(10)
    for _ in range(3):
        assert rate.opens(0.0, "first") == 0.0
        rate.send(0.0)
        rate.replied(0.0)
    assert rate.opens(0.0, "first") == 0.0
    assert rate.opens(60.0, "renewal") == 0.8 * HOURS
    assert rate.opens(0.8 * HOURS, "renewal") == 0.8 * HOURS


def test_a_target_that_is_removed_or_whose_token_lives_longer_needs_less() -> None:
    rate = scarce(10)
    rate.forget("c/0")
    rate.expect("c/1", lifetime=24 * HOURS, period=19 * HOURS)
    assert (rate.late, rate.spaced) == (True, False)
    rate.expect("c/2", lifetime=24 * HOURS, period=19 * HOURS)
    assert (rate.late, rate.spaced) == (False, False)
    rate.forget("c/unknown")


def test_late_renewals_are_due_15_to_30_s_before_expiry_and_not_all_at_once() -> None:
    margins = [late_margin(f"c/{number}") for number in range(200)]
    assert all(15.0 <= margin < 30.0 for margin in margins)
    assert len({round(margin) for margin in margins}) > 10


def test_what_earlier_processes_sent_counts() -> None:
    rate = Rate(RateLimit(2, 10.0))
    rate.restore([9.0, 4.0, 11.0], 100.0)
    assert rate.opens(100.0, "first") == 101.0
    assert sorted(rate.ages(100.0)) == [4.0, 9.0]


KINDS: list[Kind] = ["first", "renewal", "requested"]


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 4.0]), st.booleans(), st.sampled_from(KINDS)), max_size=80),
)
def test_no_window_holds_more_than_the_limit_wherever_the_provider_counts(
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
        elif rate.opens(now, kind) <= now:
            rate.send(now)
            flying.append(now)
        open_ones = [Attempt("c", sent, inf, False, True, False) for sent in flying]
        assert most_within([*log, *open_ones], 5.0) <= count

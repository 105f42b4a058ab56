"""Leases, fences, and when a daemon goes on without its fleet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.share import link
from bearerd.share.policy import (
    GATHERING,
    credible,
    explained,
    goes_alone,
    lease,
    longest_lease,
    outlasted,
    own_fence,
    stuck,
)
from bearerd.share.types import GREATEST_FENCE
from bearerd.terms import Redis

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("remaining", "seconds"), [(0.0, 12.0), (3600.0, 12.0), (20.0, 10.0), (3.0, 1.5), (0.5, 1.0)])
def test_a_lease_is_for_one_request_and_ends_long_before_the_token(remaining: float, seconds: float) -> None:
    assert lease(10.0, remaining) == seconds


@given(st.integers(0, GREATEST_FENCE - 1), st.floats(-1e9, 1e12), st.floats(0, 0.999))
def test_an_own_fence_is_greater_than_those_seen_and_may_be_given_to_a_server(
    seen: int, wall: float, dice: float
) -> None:
    assert seen < own_fence(seen, wall, dice) <= GREATEST_FENCE


@pytest.mark.parametrize(
    ("seen", "wall", "dice", "fence"),
    [(0, 0.5, 0.0, 500_000), (0, NOW, 0.5, int(NOW * 1e6) + 500), (10, 0.0, 0.0, 11), (10, 0.0, 0.5, 50_011)],
)
def test_an_own_fence_is_the_time_in_microseconds_or_the_next_after_those_seen(
    seen: int, wall: float, dice: float, fence: int
) -> None:
    assert own_fence(seen, wall, dice) == fence


def test_own_fences_grow_with_the_time() -> None:
    assert own_fence(0, NOW, 0.999) < own_fence(0, NOW + 0.002, 0.0)


@pytest.mark.parametrize("seen", [0, int(NOW * 1e6) + 10**9])
def test_own_fences_of_the_same_moment_differ(seen: int) -> None:
    assert len({own_fence(seen, NOW, number / 50) for number in range(50)}) == 50


DAY = 86400 * 10**6


@pytest.mark.parametrize(
    ("fence", "seen"),
    [(5, 5), (4, 5), (0, 0), (-1, 0), (GREATEST_FENCE + 1, GREATEST_FENCE), (int(NOW * 1e6) + DAY + 1, 5)],
)
def test_a_fence_that_does_not_grow_or_is_far_ahead_is_not_believed(fence: int, seen: int) -> None:
    assert not credible(fence, seen, NOW)


@pytest.mark.parametrize(("fence", "seen"), [(int(NOW * 1e6) + DAY, 5), (GREATEST_FENCE, GREATEST_FENCE - 1), (1, 0)])
def test_a_fence_that_grows_and_is_at_most_a_day_ahead_is_believed(fence: int, seen: int) -> None:
    assert credible(fence, seen, NOW)


def test_a_fence_may_be_ahead_of_a_clock_that_was_set_back() -> None:
    seen = int(NOW * 1e6) + 400 * DAY
    assert credible(seen + 1, seen, NOW)


def test_a_daemon_that_waits_goes_alone_without_a_token_and_for_the_last_attempt() -> None:
    assert goes_alone("alone", 100.0, last=False)
    assert not goes_alone("wait", 100.0, last=False)
    assert goes_alone("wait", 20.0, last=True)
    assert goes_alone("wait", 0.0, last=False)
    assert goes_alone("wait", 15.0, last=False)
    assert not goes_alone("wait", 15.1, last=False)


def test_the_links_of_a_fleet_are_connected_again_before_it_asks_for_new_tokens() -> None:
    assert link.backoff(1000, 1.0) + Redis("redis://host").timeout == GATHERING


@pytest.mark.parametrize(("remaining", "last", "needed"), [(0.0, False, True), (0.5, False, False), (20.0, True, True)])
def test_a_failure_is_outlasted_a_minute_after_its_wait_if_the_token_is_needed(
    remaining: float, last: bool, needed: bool
) -> None:
    assert not outlasted(NOW, NOW + 60.0, remaining, last=last)
    assert outlasted(NOW, NOW + 60.1, remaining, last=last) == needed


def test_a_failure_that_cannot_be_read_is_ignored_for_the_last_attempt_only() -> None:
    assert outlasted(None, NOW, 20.0, last=True)
    assert outlasted(None, NOW, 0.0, last=False) is False


@pytest.mark.parametrize(("windows", "longest"), [([], 72.0), ([120.0, 3600.0, 10.0], 3672.0)])
def test_a_wait_is_explained_by_the_longest_window_and_one_request(windows: list[float], longest: float) -> None:
    assert explained(windows, 10.0, longest)
    assert not explained(windows, 10.0, longest + 0.1)


def test_the_lock_of_a_request_is_never_taken_for_a_lost_one() -> None:
    for remaining in (0.0, 0.5, 20.0):
        assert not stuck(10.0, remaining, longest_lease(10.0), 0.0, last=True)


@pytest.mark.parametrize(
    ("remaining", "last", "longest"), [(0.0, False, 12.0), (0.0, True, 12.0), (1.0, True, 12.0), (20.0, True, 30.0)]
)
def test_a_lock_that_no_request_explains_is_ignored_when_the_token_is_needed(
    remaining: float, last: bool, longest: float
) -> None:
    assert not stuck(10.0, remaining, longest, 0.0, last=last)
    assert stuck(10.0, remaining, longest + 0.1, 0.0, last=last)


@pytest.mark.parametrize("remaining", [0.5, 2000.0])
def test_no_lock_is_ignored_while_there_is_a_token(remaining: float) -> None:
    assert not stuck(10.0, remaining, 3600.0, 3600.0, last=False)


def test_locks_that_end_in_no_outcome_for_a_minute_are_ignored_without_a_token() -> None:
    assert not stuck(10.0, 0.0, 5.0, 59.9, last=False)
    assert stuck(10.0, 0.0, 5.0, 60.0, last=False)
    assert not stuck(10.0, 0.5, 5.0, 60.0, last=True)

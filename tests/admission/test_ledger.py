"""A refused limit that changes: earlier attempts count against the new one."""

from __future__ import annotations

from math import inf

import pytest

from bearerd.admission.ledger import Ledger
from bearerd.admission.types import Granted, Held
from bearerd.terms import MOST_REFUSED, RateLimit
from support.admission import REFUSED, World, limits

FOUR = RateLimit(4, 120.0)


def refused(*moments: float) -> Ledger:
    ledger = Ledger()
    for moment in moments:
        ledger.refused(moment, governed=False)
    return ledger


@pytest.mark.parametrize(
    ("limit", "earliest"),
    [
        pytest.param(FOUR, 1000.0, id="the-first-three-no-longer-count"),
        pytest.param(RateLimit(4, 3600.0), 3701.0, id="longer-window"),
        pytest.param(RateLimit(6, 3600.0), 1000.0, id="longer-window-of-more"),
        pytest.param(RateLimit(2, 120.0), 1020.0, id="fewer"),
        pytest.param(RateLimit(1, 60.0), 1000.0, id="shorter-window"),
    ],
)
def test_earlier_attempts_count_against_a_changed_limit(limit: RateLimit, earliest: float) -> None:
    ledger = refused(100.0, 101.0, 102.0, 900.0)
    ledger.earliest(FOUR, 1000.0)  # forgets nothing that a larger limit counts
    assert ledger.earliest(limit, 1000.0) == earliest


def test_the_largest_limit_is_exact_although_only_the_newest_attempts_are_kept() -> None:
    ledger = refused(*(float(moment) for moment in range(1000)))
    # One of a hundred is reserved: the newest 99 must be a day old but for 98.
    assert ledger.earliest(MOST_REFUSED, 1000.0) == 901.0 + MOST_REFUSED.window
    assert len(list(ledger.ages(1000.0))) == MOST_REFUSED.count
    assert list(ledger.ages(1000.0 + MOST_REFUSED.window)) == []


def governed(w: World, count: int) -> None:
    """Let a client's attempts be refused, one after the other."""
    for number in range(count):
        w.turn(f"c/{number}")
        w.settle(f"c/{number}", REFUSED)
        w.core.forgive("c", w.now)  # changed credentials, which may be tried at once
        w.now += 1.0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_changed_limit_applies_to_attempts_before_the_change(restarted: bool) -> None:
    w = World(limits("c"))
    governed(w, 4)
    w.now += 1800.0
    if restarted:
        w.restart()
    w.limits = limits("c", refused_limit=RateLimit(4, 3600.0))
    w.core.revise(w.limits, w.now)
    answer = w.turn("c/next")
    assert isinstance(answer, Held)
    assert answer.reason == "refused_limit"
    assert answer.until == pytest.approx(1000.0 + 3600.0, abs=5.0)


def test_a_larger_limit_wakes_the_targets_that_the_smaller_one_holds() -> None:
    w = World(limits("c"))
    governed(w, 4)
    answer = w.turn("c/next")
    assert isinstance(answer, Held)
    assert answer.reason == "refused_limit"
    w.limits = limits("c", refused_limit=RateLimit(10, 120.0))
    w.core.revise(w.limits, w.now)
    w.follow()
    w.run()
    assert "c/next" in w.tickets


def test_a_limit_of_one_allows_one_attempt_with_changed_credentials_too() -> None:
    ledger = refused(1000.0)
    ledger.changed = True
    one = RateLimit(1, 60.0)
    assert ledger.earliest(one, 1001.0) == 1060.0
    assert not isinstance(ledger.send(one, 1060.0), Granted)
    assert ledger.earliest(one, 1061.0) == inf

"""Refused attempts: which ones count, what a changed limit does, and what is restored from the journal."""

from __future__ import annotations

from math import inf, nan

import pytest

from bearerd.admission.ledger import Entry, Ledger, replay
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


@pytest.mark.parametrize(
    ("changed", "in_flight", "earliest"),
    [
        *((False, 0, 1000.0), (False, 1, 1020.0), (False, 2, 1021.0), (False, 3, inf)),
        *((True, 1, 1000.0), (True, 2, 1020.0), (True, 3, 1021.0), (True, 4, inf)),
    ],
)
def test_attempts_in_flight_count_as_refused_and_one_is_reserved_for_changed_credentials(
    changed: bool, in_flight: int, earliest: float
) -> None:
    ledger = refused(880.0, 900.0, 901.0)
    ledger.changed, ledger.in_flight = changed, in_flight
    assert ledger.earliest(FOUR, 1000.0) == earliest


def test_an_attempt_counts_for_exactly_one_window() -> None:
    ledger = refused(100.0)
    assert [ledger.count(60.0, now) for now in (100.0, 159.9, 160.0)] == [1, 1, 0]
    assert list(ledger.ages(160.0)) == [60.0]


def test_the_reserved_attempt_is_used_once_the_others_are() -> None:
    ledger = refused(1000.0, 1000.0)
    ledger.changed = True
    assert not ledger.send(FOUR, 1001.0)
    assert ledger.changed
    assert ledger.send(FOUR, 1001.0)
    assert (ledger.changed, ledger.in_flight) == (False, 2)
    assert not ledger.send(FOUR, 1001.0)
    ledger.give_back(kept=False)
    assert (ledger.changed, ledger.in_flight) == (False, 2)
    ledger.give_back(kept=True)
    assert (ledger.changed, ledger.in_flight) == (True, 1)
    ledger.give_back(kept=False)
    assert (ledger.changed, ledger.in_flight) == (True, 0)


def test_of_a_limit_of_one_the_only_attempt_is_the_reserved_one() -> None:
    ledger = Ledger()
    ledger.changed = True
    assert not ledger.send(RateLimit(1, 60.0), 1000.0)
    assert ledger.send(RateLimit(1, 60.0), 1000.0)


def test_a_refused_attempt_is_in_flight_no_longer_if_it_was_governed() -> None:
    ledger = Ledger()
    ledger.in_flight = 2
    ledger.refused(1000.0, governed=False)
    ledger.refused(1001.0, governed=True)
    assert ledger.in_flight == 1
    assert list(ledger.ages(1002.0)) == [2.0, 1.0]


def test_attempts_of_an_earlier_process_are_added_in_order() -> None:
    ledger = refused(990.0)
    ledger.restore([20.0, 5.0], 1000.0)
    assert list(ledger.ages(1000.0)) == [20.0, 10.0, 5.0]
    ledger.restore([1.0] * 200, 1000.0)
    assert list(ledger.ages(1000.0)) == [1.0] * MOST_REFUSED.count


# -- replay ----------------------------------------------------------------------------------------


def sent(number: int, *rates: object, governed: bool = True, client: str = "c") -> Entry:
    return ["sent", number, client, governed, list(rates)]


@pytest.mark.parametrize(
    ("entries", "refused", "spent"),
    [
        pytest.param([(9.0, sent(1, "p")), (5.0, ["end", 1, True, True])], [5.0], [5.0], id="refused"),
        pytest.param([(9.0, sent(1, "p")), (5.0, ["end", 1, False, True])], [], [5.0], id="not-refused"),
        pytest.param([(9.0, sent(1, "p")), (5.0, ["end", 1, False, False])], [], [], id="not-sent"),
        pytest.param([(9.0, sent(1, "p", governed=False)), (5.0, ["end", 1, True, True])], [], [5.0], id="ungoverned"),
        pytest.param([(90.0, sent(1, "p"))], [50.0], [50.0], id="without-an-end"),
        pytest.param([(9.0, sent(1, "p"))], [0.0], [0.0], id="without-an-end-just-now"),
        pytest.param([(90.0, sent(1, "p", governed=False))], [], [50.0], id="ungoverned-without-an-end"),
        pytest.param([(5.0, ["end", 1, True, True])], [], [], id="end-alone"),
        pytest.param(
            [(9.0, sent(1)), (5.0, ["end", 1, True, True]), (4.0, ["end", 1, True, True])], [5.0], [], id="two"
        ),
        pytest.param([(5.0, ["refused", "c"]), (4.0, ["spent", "p"])], [5.0], [4.0], id="rewritten"),
        pytest.param([(-5.0, ["refused", "c"]), (-1.0, ["spent", "p"])], [0.0], [0.0], id="from-the-future"),
        pytest.param([(inf, ["refused", "c"]), (nan, ["spent", "p"])], [0.0], [0.0], id="no-age"),
    ],
)
def test_attempts_in_the_journal_count(
    entries: list[tuple[float, Entry]], refused: list[float], spent: list[float]
) -> None:
    past = replay(entries)
    assert past.refused.get("c", []) == refused
    assert past.spent.get("p", []) == spent
    assert not past.clients
    assert not past.targets


def test_an_attempt_without_an_end_may_have_been_counted_until_the_deadline_of_its_client() -> None:
    past = replay([(500.0, sent(1, "p")), (500.0, ["sent", 2, "d", True, ["q"]])], {"c": 330.0})
    assert dict(past.refused) == {"c": [170.0], "d": [460.0]}
    assert dict(past.spent) == {"p": [170.0], "q": [460.0]}


def test_the_last_entry_of_a_client_or_target_counts() -> None:
    past = replay([
        (9.0, ["client", "c", [1]]), (8.0, ["target", "c", "c/a", [2]]), (7.0, ["target", "d", "c/a", [3]]),
        (6.0, ["client", "c", [4]]), (5.0, ["target", "c", "c/a", None]), (4.0, ["client", "d", "no list"]),
        (3.0, ["target", "d", "d/a", "no list"]),
    ])  # fmt: skip
    assert past.clients == {"c": (6.0, [4]), "d": (4.0, None)}
    assert past.targets == {("c", "c/a"): (5.0, None), ("d", "c/a"): (7.0, [3]), ("d", "d/a"): (3.0, None)}


@pytest.mark.parametrize(
    "entry",
    [
        ["other", "c"], [], ["refused"], ["refused", 7], ["spent", 7], ["client", 7, []], ["target", "c", 7, []],
        ["target", 7, "c/a", []], ["sent", "1", "c", True, []], ["sent", 2, 7, True, []], ["sent", 2, "c", 1, []],
        ["sent", 2, "c", True, "p"], ["end", 1, 1, True], ["end", 1, True, 1], ["end", "1", True, True],
    ],
)  # fmt: skip
def test_malformed_entries_are_skipped(entry: Entry) -> None:
    past = replay([(9.0, sent(1, "p")), (5.0, entry), (4.0, ["end", 1, True, True])])
    assert (dict(past.refused), dict(past.spent), past.clients, past.targets) == ({"c": [4.0]}, {"p": [4.0]}, {}, {})


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

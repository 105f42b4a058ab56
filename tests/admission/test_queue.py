"""The order of waiting targets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.admission.queue import Queue, urgency
from bearerd.admission.types import Ask
from support.admission import ask

NOW = 1000.0


def order(queue: Queue[str], now: float = NOW) -> list[str]:
    names = []
    while (name := queue.top(now)) is not None:
        names.append(name)
        queue.discard(name)
    return names


def queue_of(*asks: Ask, now: float = NOW) -> Queue[str]:
    queue: Queue[str] = Queue()
    for each in asks:
        queue.push(each.name, each, now)
    return queue


def test_order_is_about_to_expire_then_without_a_token_then_by_expiry() -> None:
    queue = queue_of(
        ask("c/later", expires=NOW + 900.0),
        ask("c/expired", expires=NOW - 1.0, failures=1),
        ask("c/about", expires=NOW + 5.0),
        ask("c/none"),
        ask("c/soon", expires=NOW + 60.0),
        ask("c/sooner", expires=NOW + 1.0),
    )
    assert order(queue) == ["c/sooner", "c/about", "c/none", "c/expired", "c/soon", "c/later"]


@pytest.mark.parametrize(("remaining", "first"), [(5.0, "c/token"), (5.001, "c/none"), (0.001, "c/token")])
def test_a_valid_token_goes_first_from_5_s_before_its_expiry(remaining: float, first: str) -> None:
    assert queue_of(ask("c/none"), ask("c/token", expires=NOW + remaining)).top(NOW) == first


def test_an_expired_token_is_ordered_like_no_token() -> None:
    queue = queue_of(ask("c/none", failures=1), ask("c/token", expires=NOW))
    assert order(queue) == ["c/token", "c/none"]


def test_without_a_token_fewest_failures_go_first_then_first_come() -> None:
    queue = queue_of(ask("c/two", failures=2), ask("c/first"), ask("c/second"), ask("c/one", failures=1))
    assert order(queue) == ["c/first", "c/second", "c/one", "c/two"]


def test_a_queued_token_becomes_urgent_and_then_expired_as_time_passes() -> None:
    queue = queue_of(ask("c/none", failures=1), ask("c/token", expires=NOW + 60.0))
    assert queue.top(NOW) == "c/none"
    assert queue.top(NOW + 55.0) == "c/token"
    queue.push("c/none", ask("c/none", failures=0), NOW)
    assert order(queue, NOW + 60.0) == ["c/none", "c/token"]


def test_requesting_again_keeps_the_place_and_a_changed_urgency_moves_it() -> None:
    queue = queue_of(ask("c/a"), ask("c/b"))
    queue.push("c/a", ask("c/a"), NOW)
    assert queue.top(NOW) == "c/a"
    queue.push("c/a", ask("c/a", failures=1), NOW)
    assert order(queue) == ["c/b", "c/a"]


def test_a_lower_rank_goes_before_any_urgency() -> None:
    queue: Queue[str] = Queue()
    queue.push("c/tried", ask("c/tried", expires=NOW + 1.0), NOW, rank=1)
    queue.push("c/other", ask("c/other", expires=NOW + 900.0), NOW)
    assert order(queue) == ["c/other", "c/tried"]


def test_those_without_a_token_go_before_those_whose_token_expired_longest_ago_first() -> None:
    queue = queue_of(ask("c/now", expires=NOW - 1.0), ask("c/none"), ask("c/before", expires=NOW - 9.0))
    assert order(queue) == ["c/none", "c/before", "c/now"]


def test_the_order_of_two_requests_does_not_need_a_queue() -> None:
    asks = [
        ask("c/about", expires=NOW + 5.0),
        ask("c/none"),
        ask("c/before", expires=NOW - 9.0),
        ask("c/now", expires=NOW),
        ask("c/failing", failures=1),
        ask("c/soon", expires=NOW + 5.1),
        ask("c/later", expires=NOW + 900.0, failures=1),
    ]
    assert all(urgency(one, NOW) < urgency(other, NOW) for one, other in pairwise(asks))


def test_a_place_among_equals_is_kept_although_the_urgency_changed_meanwhile() -> None:
    queue = queue_of(ask("c/a"), ask("c/b"))
    queue.push("c/a", ask("c/a", failures=1), NOW)
    queue.push("c/a", ask("c/a"), NOW)
    assert order(queue) == ["c/a", "c/b"]


@pytest.mark.parametrize("changes", [{"rank": 1}, {"expires": NOW + 70.0}, {"failures": 1}])
def test_a_request_that_changes_replaces_the_former_one(changes: dict[str, Any]) -> None:
    queue = queue_of(ask("c/a", expires=NOW + 60.0), ask("c/b", expires=NOW + 60.0))
    rank = changes.pop("rank", 0)
    former = queue.ask("c/a")
    queue.push("c/a", replace(former, **changes), NOW, rank=rank)
    assert queue.ask("c/a") == replace(former, **changes)
    assert order(queue) == (["c/a", "c/b"] if "failures" in changes else ["c/b", "c/a"])


@pytest.mark.parametrize(("remaining", "at"), [(60.0, 55.0), (5.1, 0.1), (5.0, 5.0), (1.0, 1.0)])
def test_the_order_changes_when_a_token_becomes_urgent_and_when_it_expires(remaining: float, at: float) -> None:
    queue = queue_of(ask("c/none"), ask("c/token", expires=NOW + remaining), ask("c/later", expires=NOW + 900.0))
    assert queue.changes_at(NOW) == pytest.approx(NOW + at)


def test_the_order_of_targets_without_a_valid_token_does_not_change_with_time() -> None:
    assert queue_of(ask("c/none"), ask("c/expired", expires=NOW)).changes_at(NOW) == inf
    assert queue_of().changes_at(NOW) == inf


@dataclass
class Model:
    """A model of the queue: a dict that is sorted at each look."""

    asks: dict[str, Ask] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def push(self, each: Ask, number: int) -> None:
        self.asks[each.name] = each
        self.numbers.setdefault(each.name, number)

    def discard(self, name: str) -> None:
        self.asks.pop(name, None)
        self.numbers.pop(name, None)

    def top(self, now: float) -> str | None:
        return min(self.asks, key=lambda name: (urgency(self.asks[name], now), self.numbers[name]), default=None)


NAMES = st.sampled_from([f"c/{letter}" for letter in "abcdefgh"])
PUSH = st.tuples(
    NAMES,
    st.integers(0, 2),
    st.one_of(st.none(), st.integers(-3, 30).map(lambda seconds: NOW + seconds)),
)
PASS = st.sampled_from([0.0, 0.5, 1.0, 4.0])


@given(st.lists(st.one_of(PUSH, NAMES, PASS), max_size=60))
def test_the_queue_agrees_with_a_sorted_list(actions: list[object]) -> None:
    queue: Queue[str] = Queue()
    model, now = Model(), NOW
    for number, action in enumerate(actions):
        if isinstance(action, tuple):
            name, failures, expires = action
            each = ask(name, failures=failures, expires=expires)
            queue.push(name, each, now)
            model.push(each, number)
        elif isinstance(action, str):
            queue.discard(action)
            model.discard(action)
        elif isinstance(action, float):
            now += action
        assert queue.top(now) == model.top(now)
        assert set(queue) == set(model.asks)


@pytest.mark.parametrize("expires", [None, NOW + 1000.0], ids=["without", "valid"])
def test_removed_entries_are_dropped_once_they_outnumber_the_live_ones_by_64(expires: float | None) -> None:
    queue = queue_of(*(ask(f"c/{number}", expires=expires) for number in range(49)))
    longest = 0
    for number in range(1000):
        moved = None if expires is None else expires + number
        queue.push("c/moves", ask("c/moves", failures=number, expires=moved), NOW)
        longest = max(longest, len(queue._without) + len(queue._valid))
    assert longest == 2 * 50 + 64


def test_the_order_stays_when_removed_entries_are_dropped() -> None:
    shuffled = [number * 37 % 100 for number in range(100)]
    queue = queue_of(*(ask(f"c/{each:02}", failures=each) for each in shuffled))
    for each in shuffled:
        queue.push(f"d/{each:02}", ask(f"d/{each:02}", expires=NOW + 100.0 + each), NOW)
    for each in range(50):
        queue.discard(f"c/{each * 37 % 100:02}")
        queue.discard(f"d/{each * 37 % 100:02}")
    left = sorted(shuffled[50:])
    for number in range(300):
        queue.push("e/moves", ask("e/moves", failures=1000 + number), NOW)
    assert order(queue) == [*(f"c/{each:02}" for each in left), "e/moves", *(f"d/{each:02}" for each in left)]

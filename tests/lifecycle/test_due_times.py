"""Names by the moment at which they are due."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.lifecycle.due_times import DueTimes

NAMES = st.sampled_from("abcde")
MOMENTS = st.integers(0, 20).map(float)
SETS = st.tuples(st.just("set"), NAMES, MOMENTS)
REMOVALS = st.tuples(st.just("remove"), NAMES, MOMENTS)
TAKES = st.tuples(st.just("take"), NAMES, MOMENTS)


@given(st.lists(SETS | REMOVALS | TAKES, max_size=60))
def test_it_is_what_a_plain_mapping_says(steps: list[tuple[str, str, float]]) -> None:
    due, plain = DueTimes(), dict[str, float]()
    for action, name, at in steps:
        if action == "set":
            due.set(name, at)
            plain[name] = at
        elif action == "remove":
            due.remove(name)
            plain.pop(name, None)
        else:
            taken = due.take(at, again=at + 5)
            assert sorted(taken) == sorted((name, moment) for name, moment in plain.items() if moment <= at)
            assert [moment for _, moment in taken] == sorted(moment for _, moment in taken)
            plain |= {name: at + 5 for name, _ in taken}
        assert due.earliest() == min(plain.values(), default=inf)
        assert (name in due) == (name in plain)


def test_without_memory_for_a_new_time_a_name_keeps_its_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    due = DueTimes()
    due.set("a", 10.0)
    with monkeypatch.context() as patch:
        patch.setattr("bearerd.lifecycle.due_times.heappush", fails)
        with pytest.raises(MemoryError):
            due.set("a", 5.0)
    assert due.take(10.0, 20.0) == [("a", 10.0)]


def test_what_was_superseded_does_not_pile_up() -> None:
    due = DueTimes()
    for number in range(10_000):
        due.set(str(number % 10), float(number))
    assert len(due._heap) < 200
    assert due.earliest() == 9990.0

"""The retry budget: ten at once, then one per second, slowing to one in five; any answer fills it."""

from __future__ import annotations

import pytest

from bearerd.admission.retry import RetryBudget


def spent(times: int = 10, now: float = 0.0) -> RetryBudget:
    budget = RetryBudget()
    for _ in range(times):
        assert budget.opens(now) == now
        budget.take(now)
    return budget


@pytest.mark.parametrize(("taken", "opens"), [(9, 0.0), (10, 1.0)])
def test_ten_retries_go_at_once_and_the_eleventh_a_second_later(taken: int, opens: float) -> None:
    assert spent(taken).opens(0.0) == opens


def test_at_the_moment_it_named_it_is_open_and_a_tick_before_it_is_not() -> None:
    budget = spent()
    at = budget.opens(0.0)
    assert budget.opens(at - 0.001) > at - 0.001
    assert budget.opens(at) == at


@pytest.mark.parametrize(("failed", "interval"), [(0, 1.0), (10, 2.0), (40, 5.0), (400, 5.0)])
def test_while_nothing_is_answered_it_slows_down_to_one_in_five_seconds(failed: int, interval: float) -> None:
    budget = spent()
    for _ in range(failed):
        budget.failed(0.0)
    assert budget.opens(0.0) == pytest.approx(interval)


def test_any_answer_fills_it_and_makes_it_fast_again() -> None:
    budget = spent()
    for _ in range(40):
        budget.failed(0.0)
    budget.answered()
    for _ in range(10):
        assert budget.opens(0.0) == 0.0
        budget.take(0.0)
    assert budget.opens(0.0) == 1.0


def test_what_is_given_back_can_be_taken_again_and_never_more_than_ten() -> None:
    budget = spent()
    budget.give_back(0.0)
    assert budget.opens(0.0) == 0.0
    full = RetryBudget()
    full.give_back(0.0)
    assert full.left(0.0) == 10.0


def test_a_long_quiet_fills_it_and_no_further() -> None:
    assert spent().left(1e6) == 10.0

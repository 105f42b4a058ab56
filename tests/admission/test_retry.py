"""The retry budget: ten at once, then one per second, slowing to one in five seconds. Any answer fills it."""

from __future__ import annotations

import pytest

from bearerd.admission.retry import RetryBudget


def spent(times: int = 10, now: float = 0.0) -> RetryBudget:
    budget = RetryBudget()
    for _ in range(times):
        assert budget.earliest(now) == now
        budget.take(now)
    return budget


@pytest.mark.parametrize(("taken", "opens"), [(9, 0.0), (10, 1.0)])
def test_ten_retries_may_go_at_once_and_the_eleventh_a_second_later(taken: int, opens: float) -> None:
    assert spent(taken).earliest(0.0) == opens


def test_a_retry_may_go_at_the_time_it_named_and_not_before() -> None:
    budget = spent()
    at = budget.earliest(0.0)
    assert budget.earliest(at - 0.001) > at - 0.001
    assert budget.earliest(at) == at


@pytest.mark.parametrize(("failed", "interval"), [(0, 1.0), (10, 2.0), (40, 5.0), (400, 5.0)])
def test_without_answers_the_refill_slows_down_to_one_in_five_seconds(failed: int, interval: float) -> None:
    budget = spent()
    for _ in range(failed):
        budget.failed(0.0)
    assert budget.earliest(0.0) == pytest.approx(interval)


def test_any_answer_fills_the_budget_and_restores_its_speed() -> None:
    budget = spent()
    for _ in range(40):
        budget.failed(0.0)
    budget.answered()
    for _ in range(10):
        assert budget.earliest(0.0) == 0.0
        budget.take(0.0)
    assert budget.earliest(0.0) == 1.0


def test_retries_that_are_given_back_can_be_used_again_up_to_ten() -> None:
    budget = spent()
    budget.give_back(0.0)
    assert budget.left(0.0) == 1.0
    assert budget.earliest(0.0) == 0.0
    full = RetryBudget()
    full.give_back(0.0)
    assert full.left(0.0) == 10.0


def test_an_idle_budget_fills_up_to_ten() -> None:
    assert spent().left(1e6) == 10.0


def test_the_refill_goes_on_from_the_last_retry_at_the_present_speed() -> None:
    budget = spent(now=100.0)
    for _ in range(10):
        budget.failed(100.0)
    assert budget.left(100.0) == 0.0
    assert budget.left(103.0) == pytest.approx(1.5)

"""What admission hears of other daemons in the fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bearerd.admission.types import Granted, Held
from support.admission import ISSUED, OWN, REFUSED, World, limits


def world() -> World:
    return World(limits("c"))


def refuse(w: World, name: str, before: int) -> float:
    """Let a target be refused, after so many refusals by the whole fleet. Returns the seconds until its next one."""
    assert isinstance(w.turn(name), Granted)
    return w.settle(name, replace(REFUSED, before=before)) - w.now


def until(w: World, name: str) -> float:
    """Seconds for which a target is held."""
    answer = w.turn(name)
    assert isinstance(answer, Held), answer
    return answer.until - w.now


@pytest.mark.parametrize(("before", "pace"), [(0, 300.0), (1, 600.0), (3, 2400.0), (9, 3600.0)])
def test_the_pace_of_a_refused_client_grows_with_the_refusals_of_the_fleet(before: int, pace: float) -> None:
    assert refuse(world(), "c/a", before) == pace


def test_the_pace_of_a_target_on_its_own_grows_with_those_of_the_fleet() -> None:
    w = world()
    assert isinstance(w.turn("c/a"), Granted)
    assert w.settle("c/a", replace(OWN, before=2)) - w.now == 120.0


def test_a_fleet_tries_three_targets_of_a_new_client() -> None:
    w = world()
    for name in ("c/b", "c/c"):
        w.add(name)
    refuse(w, "c/a", 0)
    assert until(w, "c/b") == 2.0
    w = world()
    refuse(w, "c/a", 2)
    assert until(w, "c/b") == 1200.0


def test_settling_says_when_any_target_of_the_client_may_try_again() -> None:
    w = world()
    assert isinstance(w.turn("c/a"), Granted)
    ticket = w.tickets.pop("c/a")
    settled = w.core.settle(ticket, REFUSED, w.now)
    assert settled.of_client == settled.until == w.now + 300.0  # no other target waits
    w = world()
    assert isinstance(w.turn("c/a"), Granted)
    w.turn("c/b")
    settled = w.core.settle(w.tickets.pop("c/a"), REFUSED, w.now)
    assert (settled.until, settled.of_client) == (w.now + 300.0, w.now + 2.0)


def test_a_refusal_of_another_daemon_opens_the_breaker_until_the_next_attempt_of_the_fleet() -> None:
    w = world()
    w.core.fleet_refused("c/a", "c", REFUSED, 3, 77.0, w.now)
    w.follow()
    assert until(w, "c/a") == until(w, "c/b") == 77.0
    refusal = w.core.refusal("c/b", "c")
    assert refusal is not None
    assert (refusal.attempts, refusal.own) == (3, False)
    w.now += 78.0
    assert refuse(w, "c/a", 3) == 2400.0


def test_a_refusal_of_one_target_holds_that_target_alone() -> None:
    w = world()
    w.core.fleet_refused("c/a", "c", OWN, 1, 77.0, w.now)
    w.follow()
    assert until(w, "c/a") == 77.0
    assert isinstance(w.turn("c/b"), Granted)


def test_a_token_of_another_daemon_wakes_the_targets_of_a_refused_client() -> None:
    w = world()
    for name in ("c/a", "c/b"):
        w.add(name)
    w.core.fleet_refused("c/a", "c", REFUSED, 1, 300.0, w.now)
    w.follow()
    w.run()
    w.core.fleet_issued("c/a", "c", w.now)
    w.follow()
    w.run()
    assert "c/b" in w.tickets


def test_a_refusal_of_another_daemon_outlasts_a_restart() -> None:
    w = world()
    w.core.fleet_refused("c/a", "c", REFUSED, 3, 300.0, w.now)
    w.follow()
    w.restart(after=100.0)
    assert until(w, "c/a") == 200.0


def test_a_client_that_is_not_known_is_passed_over() -> None:
    w = world()
    w.core.fleet_refused("x/a", "x", REFUSED, 1, 300.0, w.now)
    w.core.fleet_issued("x/a", "x", w.now)
    w.check()


def test_a_token_of_another_daemon_excuses_a_target_that_was_refused_before() -> None:
    w = world()
    refuse(w, "c/a", 0)
    w.core.fleet_issued("c/b", "c", w.now)
    w.follow()
    refusal = w.core.refusal("c/a", "c")
    assert refusal is not None
    assert refusal.own
    assert isinstance(w.turn("c/b"), Granted)
    w.settle("c/b", ISSUED)


@pytest.mark.parametrize("offered", [False, True])
def test_a_target_with_a_token_from_its_fleet_leaves_its_queue_to_the_others(offered: bool) -> None:
    w = World(limits("c", max_concurrency=1))
    for name in ("c/a", "c/b", "c/c"):
        w.turn(name)
    if offered:
        w.settle("c/a", ISSUED)
    w.core.cancel("c/b", "c", w.now)
    w.alarms.pop("c/b", None)  # its turn comes, but it is not due
    if not offered:
        w.settle("c/a", ISSUED)
    w.follow()
    assert isinstance(w.turn("c/c"), Granted)
    w.check()

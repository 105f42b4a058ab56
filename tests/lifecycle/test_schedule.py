"""The adapter over the real APScheduler: each of its traps has a test that fails with the naive code."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.job import Job
from freezegun import freeze_time

from bearerd.clock import SystemClock
from bearerd.lifecycle.schedule import Schedule
from bearerd.model import Instant
from support.process import WITHIN, eventually

FAR = 3600.0


class Turns:
    """What the schedule called, and what each target's turns return."""

    def __init__(self, act: Callable[[str], float] = lambda _: FAR) -> None:
        self.act = act
        self.count: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self, name: str) -> float:
        with self._changed:
            self.count[name] += 1
            self._changed.notify_all()
        return boot() + self.act(name)

    def wait(self, name: str, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count[name] >= count, WITHIN), self.count

    def wait_all(self, total: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.count) >= total, WITHIN), len(self.count)


def boot() -> float:
    return SystemClock().now().boot


@contextmanager
def scheduled(turns: Turns, *names: str, due: float = 0.0, workers: int = 4) -> Iterator[Schedule]:
    schedule = Schedule(SystemClock(), turns, workers)
    for name in names:
        schedule.add(name, boot() + due)
    schedule.start()
    try:
        yield schedule
    finally:
        schedule.stop(WITHIN)


def test_each_target_has_its_turns_when_they_are_due() -> None:
    turns = Turns(lambda _: 0.01)
    with scheduled(turns, "a", "b"):
        turns.wait("a", 5)
        turns.wait("b", 5)


def test_ten_thousand_due_at_once_and_few_workers_lose_none() -> None:
    turns = Turns()
    with scheduled(turns, *map(str, range(10_000)), due=-30.0, workers=4) as schedule:
        turns.wait_all(10_000)
        assert schedule.alive()
    assert set(turns.count.values()) == {1}


def test_a_turn_that_raises_costs_a_minute_and_not_the_target(caplog: pytest.LogCaptureFixture) -> None:
    def act(_: str) -> float:
        raise ValueError("a secret may stand here")

    turns = Turns(act)
    with scheduled(turns, "a") as schedule:
        turns.wait("a")
        assert schedule.stop(WITHIN)
    assert 50 < schedule._due["a"] - boot() <= 60
    assert "a turn failed: ValueError at " in caplog.text
    assert "secret" not in caplog.text


def test_a_system_exit_in_a_turn_ends_no_worker() -> None:
    def act(name: str) -> float:
        if name == "a":
            raise SystemExit(1)
        return FAR

    turns = Turns(act)
    with scheduled(turns, "a", "b", workers=1) as schedule:
        turns.wait("a")
        turns.wait("b")
        assert schedule.alive()


def test_a_next_turn_that_is_due_at_once_is_not_skipped() -> None:
    # Set from inside the job, it is skipped as a second instance, and gone for an hour.
    turns = Turns(lambda _: 0.0 if turns.count["a"] < 200 else FAR)
    with scheduled(turns, "a"):
        turns.wait("a", 200)


def test_a_wake_during_a_turn_gives_another_after_it() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def act(_: str) -> float:
        inside.set()
        assert go_on.wait(WITHIN)
        return FAR

    turns = Turns(act)
    with scheduled(turns, "a") as schedule:
        assert inside.wait(WITHIN)
        schedule.wake("a")
        go_on.set()
        turns.wait("a", 2)


def test_no_wake_is_lost_whenever_in_a_turn_it_comes() -> None:
    names = list(map(str, range(20)))
    turns = Turns()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places wherever they can
    try:
        with scheduled(turns, *names, workers=8) as schedule:
            turns.wait_all(20)
            for _ in range(150):
                before = Counter(turns.count)
                for name in names:  # some are just ending their turn
                    schedule.wake(name)
                for name in names:
                    turns.wait(name, before[name] + 1)
    finally:
        sys.setswitchinterval(interval)


def test_a_wake_brings_a_turn_forward() -> None:
    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        schedule.wake("a")
        turns.wait("a")
        schedule.wake("unknown")


def test_a_hung_worker_delays_no_stop() -> None:
    go_on = threading.Event()
    turns = Turns(lambda _: float(go_on.wait(WITHIN)))
    with scheduled(turns, "a", "b", workers=1) as schedule:
        turns.wait_all(1)
        assert not schedule.stop(0.05)
        go_on.set()
    assert len(turns.count) == 1  # what was queued is not begun


def test_a_stop_waits_for_a_turn_that_is_about_to_end_even_if_it_touches_the_schedule() -> None:
    # shutdown(wait=True) deadlocks here: it joins the worker while holding the lock that the worker needs.
    inside, stopping = threading.Event(), threading.Event()

    def act(_: str) -> float:
        inside.set()
        stopping.wait(WITHIN)
        schedule.wake("b")
        return 0.0

    turns = Turns(act)
    with scheduled(turns, "a") as schedule:
        schedule.add("b", boot() + FAR)
        assert inside.wait(WITHIN)
        threading.Timer(0.05, stopping.set).start()
        assert schedule.stop(WITHIN)


def test_a_turn_that_outlasts_the_stop_ends_as_any_other(caplog: pytest.LogCaptureFixture) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def act(name: str) -> float:
        if name == "slow":
            entered.set()
            go_on.wait(WITHIN)
            schedule.wake("other")  # as a grant does for those that waited for it
        return FAR

    with scheduled(Turns(act), "slow") as schedule:
        schedule.add("other", boot() + FAR)
        assert entered.wait(WITHIN)
        assert not schedule.stop(0)
        go_on.set()
        assert schedule.stop(WITHIN)
    assert "a turn failed" not in caplog.text


@pytest.mark.parametrize("step", [-7200, -86400, 7200], ids=["2 h back", "a day back", "2 h forward"])
def test_a_step_of_the_wall_clock_moves_no_turn(step: int) -> None:
    # APScheduler would sleep until the wall clock says so: two hours too long, or not at all.
    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        turns = Turns()
        with scheduled(turns, "soon", due=0.4) as schedule:
            schedule.add("late", boot() + FAR)
            frozen.move_to(datetime.now(UTC) + timedelta(seconds=step))
            assert schedule.guard()
            # The guard gives each a turn, to look at its own times; and the next is when it said.
            turns.wait("soon")
            turns.wait("late")
            schedule.stop(WITHIN)
        assert schedule._due["late"] - boot() == pytest.approx(FAR, abs=30)


def test_turns_after_a_step_come_in_time() -> None:
    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        turns = Turns(lambda _: 0.2)
        with scheduled(turns, "a") as schedule:
            turns.wait("a", 2)
            frozen.move_to(datetime.now(UTC) - timedelta(hours=2))
            schedule.guard()
            turns.wait("a", 6)


def test_a_clock_that_leaps_from_1970_is_no_list_of_missed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # APScheduler computes each missed run, under its lock, before it coalesces them: with an interval of an
    # hour half a million for each target.
    computed = 0
    real = Job._get_run_times

    def counted(*arguments: Any) -> Any:
        nonlocal computed
        times = real(*arguments)
        computed += len(times)
        return times

    monkeypatch.setattr(Job, "_get_run_times", counted)
    with freeze_time(datetime(1970, 1, 1, tzinfo=UTC), tick=True) as frozen:
        turns = Turns()
        with scheduled(turns, "a") as schedule:
            turns.wait("a")
            schedule.wake("a")
            turns.wait("a", 2)
            frozen.move_to(datetime(2026, 11, 23, tzinfo=UTC))
            schedule._scheduler.wakeup()  # before the guard saw it
            turns.wait("a", 3)
            schedule.stop(WITHIN)
        assert turns.count["a"] == 3
    assert computed == 3


class Sleeper(SystemClock):
    """A machine that slept: wall and boot clock went on, the monotonic one, on which threads wait, did not."""

    slept = 0.0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.wall, now.boot + self.slept)

    def suspended(self) -> float:
        return self.slept


def test_after_a_suspend_every_target_has_a_turn() -> None:
    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        clock, turns = Sleeper(), Turns()
        schedule = Schedule(clock, turns, 1)
        schedule.add("a", clock.now().boot + FAR)
        schedule.start()
        try:
            assert not schedule.guard()
            clock.slept = 5000.0
            frozen.move_to(datetime.now(UTC) + timedelta(seconds=5000))
            assert schedule.guard()
            turns.wait("a")
        finally:
            schedule.stop(WITHIN)


def test_the_guard_sees_nothing_where_nothing_happened() -> None:
    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        assert not schedule.guard()
        assert not turns.count


def test_a_dead_schedule_is_known_as_dead() -> None:
    schedule = Schedule(SystemClock(), Turns(), 1)
    assert not schedule.alive()
    schedule.start()
    assert schedule.alive()
    schedule.stop(WITHIN)
    assert not schedule.alive()


class Later(SystemClock):
    """A clock by which it is later than it is."""

    by = 0.0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.wall + self.by, now.boot + self.by)


def test_a_scheduler_that_leaves_turns_lying_is_known_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = Later(), Turns()
    schedule = Schedule(clock, turns, 2)
    schedule.start()
    try:
        monkeypatch.setattr(schedule._scheduler, "_process_jobs", lambda: FAR)  # its thread is there and does nothing
        schedule.add("late", boot() + FAR)
        schedule.add("soon", boot() + 5)
        for clock.by, alive in ((0.0, True), (20.0, True), (36.0, False)):
            assert schedule.alive() is alive
        assert not turns.count
        schedule.remove("soon")
        assert schedule.alive()
        schedule.remove("late")
        clock.by = 2 * FAR
        assert schedule.alive()
    finally:
        schedule.stop(WITHIN)


def test_a_scheduler_whose_thread_has_ended_is_known_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> float:
        raise SystemExit

    schedule = Schedule(SystemClock(), Turns(), 1)
    schedule.start()
    try:
        assert schedule.alive()
        monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's makes a warning of it
        monkeypatch.setattr(schedule._scheduler, "_process_jobs", end)
        schedule._scheduler.wakeup()
        eventually(lambda: not schedule._scheduler._thread.is_alive())
        assert not schedule.alive()
    finally:
        schedule.stop(WITHIN)


def test_one_whose_workers_all_hang_is_alive() -> None:
    clock, go_on = Later(), threading.Event()
    turns = Turns(lambda _: float(go_on.wait(WITHIN)))
    schedule = Schedule(clock, turns, 2)
    for number in range(10):
        schedule.add(str(number), boot())
    schedule.start()
    try:
        turns.wait_all(2)
        eventually(lambda: schedule._jobs.earliest() > clock.now().wall + 1800)
        clock.by = 1800.0
        assert schedule.alive()
    finally:
        go_on.set()
        schedule.stop(WITHIN)


@pytest.mark.parametrize("step", [7200, -7200], ids=["2 h forward", "2 h back"])
def test_a_step_of_the_clock_during_a_turn_does_not_make_it_look_dead(step: int) -> None:
    under_way, may_end = threading.Event(), threading.Event()

    def act(_: str) -> float:
        under_way.set()
        assert may_end.wait(WITHIN)
        return FAR

    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        turns = Turns(act)
        with scheduled(turns, "a") as schedule:
            assert under_way.wait(WITHIN)
            frozen.move_to(datetime.now(UTC) + timedelta(seconds=step))
            assert schedule.guard()
            eventually(schedule.alive)
            assert not schedule.guard()
            assert schedule.alive()
            assert turns.count["a"] == 1
            may_end.set()
            turns.wait("a", 2)  # the guard's
            assert schedule.alive()


def test_turns_that_found_no_thread_have_one_at_the_next_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = Later(), Turns()
    schedule = Schedule(clock, turns, 1)
    schedule.start()
    try:
        with monkeypatch.context() as patch:
            tried = threading.Event()

            def no_more(_: threading.Thread) -> None:
                tried.set()
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", no_more)
            schedule.add("a", boot())
            assert tried.wait(WITHIN)
        assert not turns.count
        clock.by = 5.0
        schedule.guard()
        turns.wait("a")
    finally:
        schedule.stop(WITHIN)


def test_a_target_that_was_removed_has_no_more_turns() -> None:
    under_way, may_end = threading.Event(), threading.Event()

    def act(name: str) -> float:
        if name == "a":
            under_way.set()
            assert may_end.wait(WITHIN)
        return 0.01

    turns = Turns(act)
    with scheduled(turns, "a", "b") as schedule:
        assert under_way.wait(WITHIN)
        schedule.remove("a")
        schedule.wake("a")
        may_end.set()
        turns.wait("b", turns.count["b"] + 20)
        assert turns.count["a"] == 1
        assert schedule.alive()
        schedule.remove("nobody")


def test_a_target_that_is_removed_during_its_turn_and_put_back_goes_on() -> None:
    under_way, may_end = threading.Event(), threading.Event()

    def act(_: str) -> float:
        if turns.count["a"] == 1:
            under_way.set()
            assert may_end.wait(WITHIN)
        return FAR

    turns = Turns(act)
    with scheduled(turns, "a") as schedule:
        assert under_way.wait(WITHIN)
        schedule.remove("a")
        schedule.add("a", boot())
        may_end.set()
        turns.wait("a", 2)
        schedule.wake("a")
        turns.wait("a", 3)


def test_a_wake_at_a_later_moment_never_delays_a_turn() -> None:
    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        schedule.wake("a", boot() + 0.2)
        schedule.wake("a", boot() + 2 * FAR)
        turns.wait("a")


def test_more_workers_serve_the_targets_that_are_there_too() -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    def act(_: str) -> float:
        inside.release()
        assert go_on.wait(WITHIN)
        return FAR

    names = list(map(str, range(4)))
    with scheduled(Turns(act), *names, due=FAR, workers=1) as schedule:
        schedule.resize(4)
        for name in names:
            schedule.wake(name)
        try:
            for _ in names:  # all at once
                assert inside.acquire(timeout=WITHIN)
        finally:
            go_on.set()

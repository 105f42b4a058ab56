"""The adapter over the real APScheduler. Each property that it works around has a test that fails with naive code."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from freezegun import freeze_time

from bearerd import handoff
from bearerd.clock import SystemClock
from bearerd.errors import Stopping
from bearerd.handoff import RunQueue
from bearerd.lifecycle.due_times import DueTimes
from bearerd.lifecycle.jobs import Jobs
from bearerd.lifecycle.schedule import Schedule
from bearerd.terms import Instant
from bearerd.threads import Pool
from support.no_threads import no_threads
from support.process import WITHIN, eventually

FAR = 3600.0


class Turns:
    """The turns that the schedule ran, and their return values."""

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


def test_turns_run_when_they_are_due() -> None:
    turns = Turns(lambda _: 0.01)
    with scheduled(turns, "a", "b"):
        turns.wait("a", 5)
        turns.wait("b", 5)


def test_ten_thousand_due_turns_on_few_workers_all_run() -> None:
    turns = Turns()
    with scheduled(turns, *map(str, range(10_000)), due=-30.0, workers=4) as schedule:
        turns.wait_all(10_000)
        assert schedule.alive()
    assert set(turns.count.values()) == {1}


def test_a_target_without_a_next_turn_has_one_within_an_hour() -> None:
    before = SystemClock().now().wall
    schedule = Schedule(SystemClock(), Turns(), 1)
    schedule.add("a", inf)
    next_run = schedule._jobs._store.lookup_job("a").next_run_time.timestamp()
    # A job has whole microseconds.
    assert before + 3599 <= next_run <= SystemClock().now().wall + 3601


def test_turns_run_on_threads_of_the_newest_pool() -> None:
    threads: list[int] = []

    def act(_: str) -> float:
        threads.append(threading.get_ident())
        return FAR

    turns = Turns(act)
    with scheduled(turns, "a", workers=1) as schedule:
        turns.wait("a")
        schedule.resize(2)
        schedule.add("b", 0.0)
        turns.wait("b")
        assert schedule.stop(WITHIN)
    assert threads[0] != threads[1]


def test_a_target_whose_turn_raises_runs_again_after_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    def act(_: str) -> float:
        raise ValueError("a secret may stand here")

    turns = Turns(act)
    with scheduled(turns, "a") as schedule:
        turns.wait("a")
        assert schedule.stop(WITHIN)
    assert 50 < schedule._due["a"] - boot() <= 60
    assert "a turn failed: ValueError at " in caplog.text
    assert "secret" not in caplog.text


def test_a_turn_that_a_stop_ended_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def act(_: str) -> float:
        raise Stopping

    turns = Turns(act)
    with scheduled(turns, "a") as schedule:
        turns.wait("a")
        assert schedule.stop(WITHIN)
    assert caplog.messages == []


def test_system_exit_in_a_turn_does_not_end_the_worker() -> None:
    def act(name: str) -> float:
        if name == "a":
            raise SystemExit(1)
        return FAR

    turns = Turns(act)
    with scheduled(turns, "a", "b", workers=1) as schedule:
        turns.wait("a")
        turns.wait("b")
        assert schedule.alive()


def test_a_next_turn_that_is_due_at_once_runs() -> None:
    # Naively set from inside the job, the run is skipped as a second instance, and the next one is an hour later.
    turns = Turns(lambda _: 0.0 if turns.count["a"] < 200 else FAR)
    with scheduled(turns, "a"):
        turns.wait("a", 200)


def test_a_wake_during_a_turn_schedules_another_one() -> None:
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


def test_a_wake_at_any_point_of_a_turn_is_kept() -> None:
    names = list(map(str, range(20)))
    turns = Turns()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # switch threads at almost every instruction
    try:
        with scheduled(turns, *names, workers=8) as schedule:
            turns.wait_all(20)
            for _ in range(150):
                before = Counter(turns.count)
                for name in names:  # some are just finishing their turn
                    schedule.wake(name)
                for name in names:
                    turns.wait(name, before[name] + 1)
    finally:
        sys.setswitchinterval(interval)


def test_a_wake_moves_a_turn_forward() -> None:
    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        schedule.wake("a")
        turns.wait("a")
        schedule.wake("unknown")


def test_a_hung_worker_does_not_delay_the_stop() -> None:
    go_on = threading.Event()
    turns = Turns(lambda _: float(go_on.wait(WITHIN)))
    with scheduled(turns, "a", "b", workers=1) as schedule:
        turns.wait_all(1)
        assert not schedule.stop(0.05)
        go_on.set()
    assert len(turns.count) == 1  # queued turns are not started


def test_a_stop_waits_for_a_running_turn_that_uses_the_schedule() -> None:
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


def test_turns_go_on_although_more_turns_hang_than_there_were_threads(caplog: pytest.LogCaptureFixture) -> None:
    answers = threading.Event()

    def act(name: str) -> float:
        if name != "healthy":
            answers.wait(WITHIN)
        return FAR

    hanging, turns = [str(number) for number in range(6)], Turns(act)
    with scheduled(turns, *hanging, workers=4) as schedule:
        for name in hanging:
            turns.wait(name)
        schedule.add("healthy", boot())
        turns.wait("healthy")
        answers.set()
        eventually(lambda: not schedule._running and not schedule._queue.stuck)
    assert "tokens are stuck, probably on a file system that does not answer" in caplog.text
    assert "a turn failed" not in caplog.text


def test_a_turn_that_outlasts_the_stop_ends_without_an_error(caplog: pytest.LogCaptureFixture) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def act(name: str) -> float:
        if name == "slow":
            entered.set()
            go_on.wait(WITHIN)
            schedule.wake("other")  # as admission does after a grant
            schedule.remove("other")
        return FAR

    with scheduled(Turns(act), "slow") as schedule:
        schedule.add("other", boot() + FAR)
        assert entered.wait(WITHIN)
        assert not schedule.stop(0)
        go_on.set()
        assert schedule.stop(WITHIN)
    assert "a turn failed" not in caplog.text


@pytest.mark.parametrize("step", [-7200, -86400, 7200], ids=["2 h back", "a day back", "2 h forward"])
def test_a_step_of_the_wall_clock_does_not_move_turns(step: int) -> None:
    # APScheduler by itself would sleep two hours too long, or not at all.
    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        turns = Turns()
        with scheduled(turns, "soon", due=0.4) as schedule:
            schedule.add("late", boot() + FAR)
            frozen.move_to(datetime.now(UTC) + timedelta(seconds=step))
            assert schedule.tick()
            # The check gives each target a turn for its own times. The next turn is when that one said.
            turns.wait("soon")
            turns.wait("late")
            schedule.stop(WITHIN)
        assert schedule._due["late"] - boot() == pytest.approx(FAR, abs=30)


def test_turns_after_a_clock_step_run_in_time() -> None:
    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        turns = Turns(lambda _: 0.2)
        with scheduled(turns, "a") as schedule:
            turns.wait("a", 2)
            frozen.move_to(datetime.now(UTC) - timedelta(hours=2))
            schedule.tick()
            turns.wait("a", 6)


def test_a_clock_step_from_1970_does_not_compute_missed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # APScheduler computes each missed run under its lock before it coalesces them: with an interval of an hour, half a
    # million per target.
    computed = 0
    real = Job._get_run_times

    def counted(*arguments: Any) -> Any:
        nonlocal computed
        times = real(*arguments)
        computed += len(times) if arguments[0].id == "a" else 0
        return times

    monkeypatch.setattr(Job, "_get_run_times", counted)
    with freeze_time(datetime(1970, 1, 1, tzinfo=UTC), tick=True) as frozen:
        turns = Turns()
        with scheduled(turns, "a") as schedule:
            turns.wait("a")
            schedule.wake("a")
            turns.wait("a", 2)
            frozen.move_to(datetime(2026, 11, 23, tzinfo=UTC))
            schedule._jobs.wake()  # before the clocks are checked
            turns.wait("a", 3)
            schedule.stop(WITHIN)
        assert turns.count["a"] == 3
    assert computed == 3


class Sleeper(SystemClock):
    """A machine that was suspended: the wall and boot clocks ran on, the monotonic clock of waiting threads did not."""

    slept = 0.0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.wall, now.boot + self.slept)

    def suspended(self) -> float:
        return self.slept


def test_every_target_has_a_turn_after_a_suspend() -> None:
    with freeze_time(datetime.now(UTC), tick=True) as frozen:
        clock, turns = Sleeper(), Turns()
        schedule = Schedule(clock, turns, 1)
        schedule.add("a", clock.now().boot + FAR)
        schedule.start()
        try:
            assert not schedule.tick()
            clock.slept = 5000.0
            frozen.move_to(datetime.now(UTC) + timedelta(seconds=5000))
            assert schedule.tick()
            turns.wait("a")
        finally:
            schedule.stop(WITHIN)


def test_a_tick_reports_no_step_without_one() -> None:
    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        assert not schedule.tick()
        assert not turns.count


def test_a_stopped_schedule_is_not_alive() -> None:
    schedule = Schedule(SystemClock(), Turns(), 1)
    assert not schedule.alive()
    schedule.start()
    assert schedule.alive()
    schedule.stop(WITHIN)
    assert not schedule.alive()


class Later(SystemClock):
    """A clock that can be set ahead."""

    by = 0.0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.wall + self.by, now.boot + self.by)


def test_a_scheduler_that_does_not_run_due_turns_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = Later(), Turns()
    schedule = Schedule(clock, turns, 2)
    schedule.start()
    try:
        monkeypatch.setattr(schedule._jobs._scheduler, "_process_jobs", lambda: FAR)  # its thread runs and does nothing
        schedule.add("late", boot() + FAR)
        schedule.add("soon", boot() + 5)
        for clock.by, alive in ((0.0, True), (20.0, True), (36.0, False)):
            assert schedule.alive() is alive
        assert not turns.count
        schedule.remove("soon")
        assert schedule.alive()
    finally:
        schedule.stop(WITHIN)


def test_a_scheduler_whose_thread_ended_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> float:
        raise SystemExit

    schedule = Schedule(SystemClock(), Turns(), 1)
    schedule.start()
    try:
        assert schedule.alive()
        monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's hook would raise a warning
        monkeypatch.setattr(schedule._jobs._scheduler, "_process_jobs", end)
        schedule._jobs.wake()
        eventually(lambda: not schedule._jobs.alive())
        assert not schedule.alive()
    finally:
        schedule.stop(WITHIN)


def test_a_scheduler_whose_workers_all_hang_is_alive() -> None:
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
def test_a_clock_step_during_a_turn_keeps_it_alive(step: int) -> None:
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
            assert schedule.tick()
            eventually(schedule.alive)
            assert not schedule.tick()
            assert schedule.alive()
            assert turns.count["a"] == 1
            may_end.set()
            turns.wait("a", 2)  # from the check
            assert schedule.alive()


def test_turns_without_a_thread_get_one_at_the_next_tick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns = Turns()
    with scheduled(turns, workers=1) as schedule:
        with monkeypatch.context() as patch:
            tried = no_threads(patch)
            schedule.add("a", boot())
            eventually(lambda: tried)
            schedule.tick()
        assert "no thread can be started; raise TasksMax" in caplog.text
        assert not turns.count
        schedule.tick()
        turns.wait("a")


@pytest.mark.parametrize("place", ["turn", "enter", "next", "thread", "due", "submit", "move"])
def test_after_a_lack_of_memory_all_targets_have_a_turn_at_the_next_tick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    failed = threading.Event()

    def fails(*_: object) -> Any:
        failed.set()
        raise MemoryError

    turns = Turns(lambda _: fails() if place == "turn" and not failed.is_set() else FAR)
    with scheduled(turns, "b", due=FAR) as schedule:
        with monkeypatch.context() as patch:
            if place in {"enter", "next"}:
                patch.setattr(RunQueue, place, fails)
            elif place == "thread":
                patch.setattr(BackgroundScheduler, "_process_jobs", fails)
            elif place == "due":
                patch.setattr(DueTimes, "take", fails)
            elif place == "submit":
                patch.setattr(Pool, "submit", fails)
            elif place == "move":
                patch.setattr(Jobs, "move", fails)
            schedule.add("a", boot())
            assert failed.wait(WITHIN)
            eventually(lambda: schedule._lacked_memory)
        if place == "turn":
            eventually(lambda: "a turn failed: out of memory" in caplog.text)
        elif place == "thread":
            eventually(lambda: "the scheduler failed: out of memory" in caplog.text)
        assert not schedule.tick()
        turns.wait("b")
        turns.wait("a", 2 if place in {"turn", "next", "move"} else 1)
        assert not schedule.tick()
        assert turns.count["b"] == 1
        eventually(lambda: not schedule._queue.stuck)


def test_a_lack_of_memory_after_a_turn_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff, "PATIENCE", FAR)  # nobody takes over
    under_way, may_end, move = threading.Event(), threading.Event(), Jobs.move

    def act(name: str) -> float:
        if name == "a":
            under_way.set()
            assert may_end.wait(WITHIN)
        return FAR

    def fails(jobs: Jobs, name: str, at: float) -> bool:
        if name == "a":
            raise MemoryError
        return move(jobs, name, at)

    turns = Turns(act)
    with scheduled(turns, "b", due=FAR) as schedule:
        schedule.add("a", boot())
        assert under_way.wait(WITHIN)
        schedule.wake("b")
        monkeypatch.setattr(Jobs, "move", fails)
        may_end.set()
        turns.wait("b")


def test_after_a_lack_of_memory_a_due_turn_wakes_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    # When it cannot read the jobs, APScheduler sleeps for 10 s.
    failed, woken = threading.Event(), threading.Event()

    def fails(*_: object) -> Any:
        failed.set()
        raise MemoryError

    turns = Turns()
    with scheduled(turns, "b", due=FAR) as schedule:
        with monkeypatch.context() as patch:
            patch.setattr(DueTimes, "take", fails)
            schedule.add("a", boot())
            assert failed.wait(WITHIN)
            eventually(lambda: schedule._lacked_memory)
        wakeup = BackgroundScheduler.wakeup

        def wakes(scheduler: BackgroundScheduler) -> None:
            woken.set()
            wakeup(scheduler)

        monkeypatch.setattr(BackgroundScheduler, "wakeup", wakes)
        schedule.tick()
        assert woken.wait(WITHIN)
        turns.wait("b")


def test_after_a_lack_of_memory_stuck_threads_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def look(_: RunQueue) -> None:
        looked.set()

    monkeypatch.setattr(RunQueue, "relieve", look)
    with scheduled(Turns(), "a") as schedule:
        schedule.tick()
        schedule._lack_memory()  # the run that looks at them may have been lost, and the next one is in an hour
        schedule.tick()
        assert looked.wait(WITHIN)


@pytest.mark.parametrize("busy", [False, True])
def test_a_target_that_was_woken_without_memory_has_its_turn_at_the_next_tick(
    monkeypatch: pytest.MonkeyPatch, *, busy: bool
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        with monkeypatch.context() as patch:
            patch.setattr(RunQueue, "offer", fails if busy else lambda *_: False)
            patch.setattr(DueTimes, "set", fails)
            with pytest.raises(MemoryError):
                schedule.wake("a")
        schedule.tick()
        turns.wait("a")


def test_a_removed_target_has_no_more_turns() -> None:
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


def test_a_target_removed_during_its_turn_and_added_again_goes_on() -> None:
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


def test_a_later_wake_does_not_delay_a_turn() -> None:
    turns = Turns()
    with scheduled(turns, "a", due=FAR) as schedule:
        schedule.wake("a", boot() + 0.2)
        schedule.wake("a", boot() + 2 * FAR)
        turns.wait("a")


def test_additional_workers_also_serve_existing_targets() -> None:
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

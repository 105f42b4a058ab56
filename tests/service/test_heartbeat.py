"""Whether turns are given, as /livez and the main loop have it; on a clock by hand, by which no real schedule turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd.config.load import load
from bearerd.service.engine import Engine
from bearerd.terms import Instant
from support.clock import FakeClock

# APScheduler's clock is the real one: by it nothing is ever due.
AHEAD = 1e6


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(Instant(time.time() + AHEAD, 5000.0))


@pytest.fixture
def engine(tmp_path: Path, clock: FakeClock) -> Iterator[Engine]:
    (tmp_path / "config.yaml").write_text(
        f"output: {{directory: {tmp_path}/tokens}}\nclients:\n  dnb:\n    token_url: https://login.example.com/\n"
        "    client_id: x\n    client_secret: {env: S}\n    tokens: {bci: {}}\n"
    )
    built = Engine(load(str(tmp_path / "config.yaml"), {}), {"S": "s"}, clock=clock)
    built.start()
    yield built
    built.schedule._running.clear()
    built.stop()


def idle(engine: Engine) -> None:
    """As if every due turn had run."""
    engine.schedule.remove("dnb/bci")


def test_it_beats_without_the_main_loop_for_as_long_as_turns_are_given(engine: Engine, clock: FakeClock) -> None:
    # A file system that hangs holds the main loop, and no turn of another file system's tokens.
    idle(engine)
    clock.advance(3600.0)
    assert engine.alive()
    assert engine.status().alive


def test_it_is_stale_30_s_after_the_last_look_if_due_turns_did_not_run(engine: Engine, clock: FakeClock) -> None:
    clock.advance(30.0)
    assert engine.alive()
    clock.advance(0.1)
    assert not engine.alive()
    assert not engine.status().alive


def test_it_goes_stale_while_due_turns_do_not_run(engine: Engine, clock: FakeClock) -> None:
    seen = []
    for _ in range(10):
        clock.advance(8.0)
        engine.tick()
        seen.append(engine.alive())
    # The first turn was due at once: at 32 s it is overdue for too long, and at 54 s it has been so for 30 s.
    assert seen == [True] * 6 + [False] * 4
    idle(engine)
    assert engine.alive()


def test_one_that_was_paused_as_a_whole_is_not_found_dead_by_its_first_look(engine: Engine, clock: FakeClock) -> None:
    engine.tick()
    clock.advance(3600.0)  # SIGSTOP, a frozen cgroup, a paused VM: what was due meanwhile is still lying
    engine.tick()
    assert not engine.schedule.alive()
    assert engine.alive()
    for _ in range(4):
        clock.advance(8.0)
        engine.tick()
    assert not engine.alive()


def test_no_sleep_of_the_machine_makes_it_stale(engine: Engine, clock: FakeClock) -> None:
    clock.advance(20.0)
    clock.suspend(36_000.0)
    assert engine.alive()
    clock.advance(10.0)
    assert engine.alive()
    clock.advance(0.1)
    assert not engine.alive()
    engine.tick()
    assert engine.alive()


def test_the_look_that_finds_a_step_is_none_that_finds_it_dead(engine: Engine, clock: FakeClock) -> None:
    # One whose turn is under way is set anew by the schedule's own thread, which may still be about it.
    engine.schedule._running.add("dnb/bci")
    clock.advance(29.0)
    clock.step(7200.0)
    engine.tick()
    assert not engine.schedule.alive()
    clock.advance(29.0)
    assert engine.alive()

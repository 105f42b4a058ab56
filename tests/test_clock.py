"""The machine's clocks, read on a machine that pauses the process between two reads."""

from __future__ import annotations

import time

import pytest

from bearerd import clock
from bearerd.clock import SystemClock
from bearerd.terms import Instant


class Paused:
    """Clocks on which each read may be followed by a pause of so many seconds."""

    CLOCK_BOOTTIME, CLOCK_MONOTONIC = "boot", "monotonic"

    def __init__(self, *pauses: float) -> None:
        self.passed = 0.0
        self.pauses = list(pauses)

    def clock_gettime(self, which: str) -> float:
        """The boot clock is 100 s ahead of the monotonic one."""
        return self._read({"boot": 200.0, "monotonic": 100.0}[which])

    def time(self) -> float:
        """The wall clock."""
        return self._read(1000.0)

    def _read(self, start: float) -> float:
        found = start + self.passed
        self.passed += self.pauses.pop(0) if self.pauses else 0.0
        return found


@pytest.mark.parametrize(
    "pauses", [(), (5.0,), (0.0, 5.0), (0.0, 0.0, 5.0), (3.0, 0.0, 0.0, 0.0, 3.0), (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)]
)
def test_a_pause_between_two_reads_is_no_step_and_no_suspend(
    monkeypatch: pytest.MonkeyPatch, pauses: tuple[float, ...]
) -> None:
    paused = Paused(*pauses)
    monkeypatch.setattr(clock, "time", paused)
    now = SystemClock().now()
    assert now.wall - now.boot == pytest.approx(800.0)
    paused.pauses[:] = pauses
    assert SystemClock().suspended() == pytest.approx(100.0)


def test_where_each_read_is_followed_by_a_pause_the_last_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", Paused(*[1.0] * 100))
    assert SystemClock().now() == Instant(wall=1013.0, boot=214.0)


def test_it_is_the_time() -> None:
    before, now, after = time.time(), SystemClock().now(), time.time()
    assert before <= now.wall <= after
    assert 0.0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - now.boot < 60.0

"""The only module that reads the clocks and random numbers. Everything else gets them as arguments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, Protocol

from bearerd.terms import Instant

# Seconds. Two reads take a microsecond, unless the process is paused between them.
_TOGETHER: Final = 0.01
# On a machine that pauses the process all the time, the last reads are used.
_TRIES: Final = 5


class Clock(Protocol):
    """A source of time. Tests have their own."""

    def now(self) -> Instant:
        """The present time on both clocks."""
        ...

    def suspended(self) -> float:
        """Seconds that this machine was suspended since it booted. A change means that it just woke."""
        ...

    def boot_id(self) -> str:
        """The id of this boot of the machine; empty if it is not known."""
        ...


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME includes suspends, and cannot be set."""

    def now(self) -> Instant:
        """The present time on both clocks."""
        wall, boot = _with_boot(time.time)
        return Instant(wall=wall, boot=boot)

    def suspended(self) -> float:
        """Seconds that this machine was suspended since it booted."""
        # Not time.monotonic: freezegun freezes it in tests, which would look like a suspend.
        monotonic, boot = _with_boot(lambda: time.clock_gettime(time.CLOCK_MONOTONIC))
        return boot - monotonic

    def boot_id(self) -> str:
        """The id of this boot of the machine (random(4))."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""


def _with_boot(read: Callable[[], float]) -> tuple[float, float]:
    """The time of a clock and that of the boot clock, read together. A pause between the two would look like a step."""
    for _ in range(_TRIES):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        value = read()
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        if boot - before < _TOGETHER:
            break
    return value, boot


_RANDOM = random.SystemRandom()


def dice() -> float:
    """A random number in [0, 1), for jitter."""
    return _RANDOM.random()

"""The only module that reads the clocks and random numbers. Everything else gets them as arguments."""

from __future__ import annotations

import random
import time
from typing import Protocol

from bearerd.terms import Instant


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
        return Instant(wall=time.time(), boot=time.clock_gettime(time.CLOCK_BOOTTIME))

    def suspended(self) -> float:
        """Seconds that this machine was suspended since it booted."""
        # Not time.monotonic: freezegun freezes it in tests, which would look like a suspend.
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)

    def boot_id(self) -> str:
        """The id of this boot of the machine (random(4))."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""


_RANDOM = random.SystemRandom()


def dice() -> float:
    """A random number in [0, 1), for jitter."""
    return _RANDOM.random()

"""The clocks and the dice: the one place that reads them, so that everything else can be handed them."""

from __future__ import annotations

import random
import time
from typing import Protocol

from bearerd.model import Instant


class Clock(Protocol):
    """What the shell asks for the time."""

    def now(self) -> Instant:
        """This moment on both clocks."""
        ...

    def suspended(self) -> float:
        """Seconds this machine has slept since it booted; a change means it just woke."""
        ...

    def boot_id(self) -> str:
        """What tells this boot of the machine from others; empty where that is not known."""
        ...


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME goes on while the machine sleeps, and no one can set it."""

    def now(self) -> Instant:
        """This moment on both clocks."""
        return Instant(wall=time.time(), boot=time.clock_gettime(time.CLOCK_BOOTTIME))

    def suspended(self) -> float:
        """Seconds this machine has slept since it booted."""
        # Not time.monotonic: a frozen one (freezegun) would look like a suspend.
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)

    def boot_id(self) -> str:
        """What tells this boot of the machine from others (random(4))."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""


_RANDOM = random.SystemRandom()


def dice() -> float:
    """A random number in [0, 1): what jitter is made of."""
    return _RANDOM.random()

"""A clock that moves only when a test moves it."""

from __future__ import annotations

from bearerd.terms import Instant

START = Instant(wall=1_800_000_000.0, boot=5_000.0)


class FakeClock:
    """Both clocks. `advance` lets time pass, `step` sets the wall clock, `suspend` suspends the machine."""

    def __init__(self, start: Instant = START) -> None:
        self.wall, self.boot, self.slept = start.wall, start.boot, 0.0
        self.boots = 1

    def now(self) -> Instant:
        """The present time on both clocks."""
        return Instant(self.wall, self.boot)

    def suspended(self) -> float:
        """Seconds of suspend so far."""
        return self.slept

    def boot_id(self) -> str:
        """The id of this boot. `reboot` begins another."""
        return f"boot-{self.boots}"

    def reboot(self) -> None:
        """Begin another boot, with a boot clock from 0."""
        self.boots += 1
        self.boot = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.boot += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall += seconds

    def suspend(self, seconds: float) -> None:
        """Suspend the machine."""
        self.advance(seconds)
        self.slept += seconds

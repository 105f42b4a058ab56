"""A clock that only the test moves."""

from __future__ import annotations

from bearerd.model import Instant

START = Instant(wall=1_800_000_000.0, boot=5_000.0)


class FakeClock:
    """Both clocks, by hand: `advance` lets time pass, `step` sets the wall clock, `suspend` sleeps."""

    def __init__(self, start: Instant = START) -> None:
        self.wall, self.boot, self.slept = start.wall, start.boot, 0.0
        self.boots = 1

    def now(self) -> Instant:
        """This moment."""
        return Instant(self.wall, self.boot)

    def suspended(self) -> float:
        """Seconds slept."""
        return self.slept

    def boot_id(self) -> str:
        """Which boot this is: `reboot` begins another."""
        return f"boot-{self.boots}"

    def reboot(self) -> None:
        """Reset the boot clock."""
        self.boots += 1
        self.boot = 0.0

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.boot += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall += seconds

    def suspend(self, seconds: float) -> None:
        """The machine sleeps."""
        self.advance(seconds)
        self.slept += seconds

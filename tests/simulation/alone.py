"""One world of one daemon while it lives."""

from __future__ import annotations

from collections import Counter
from functools import partial

from simulation.checks import listen
from simulation.deeds import Deeds
from simulation.describe import Kept

# Reads of a file, in each of its lifetimes on average.
_READS = 1.0
_SHORTEST_BETWEEN_READS = 5.0


class Run(Deeds):
    """One world while it lives."""

    def listen(self) -> None:
        """Hear errors from now on."""
        listen(self.checks)

    def made(self) -> Counter[str]:
        """The checks that were made."""
        return self.checks.made

    def trace(self, target: str) -> list[tuple[float, str]]:
        """What happened of late that concerns a target."""
        return list(self.checks.traces[target])

    def run(self) -> None:
        """From the first start to the end of the world."""
        self.kernel.after = self._after
        self._excuse_faults()
        self._start()
        for event in self.world.events:
            self.kernel.at(event.time, partial(self._do, event))
        for kept in self.world.targets:
            self._read_later(kept)
        self.kernel.run(self.world.seconds)

    def _after(self) -> None:
        if not self._down:
            self.daemon.plan_look()
            self.checks.settled()

    def _read_later(self, kept: Kept) -> None:
        wait = max(_SHORTEST_BETWEEN_READS, kept.lifetime / _READS * 2 * self.dice.random())
        self.kernel.at(self.kernel.now + wait, partial(self._read, kept))

    def _read(self, kept: Kept) -> None:
        self.counts["reads"] += 1
        self._look(kept.full_name)
        self._read_later(kept)

"""Runs one world, to its end or to the first violation."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from bearerd.log import LOGGER
from simulation.checks import Violation, listen
from simulation.deeds import Deeds
from simulation.describe import Kept, World

# Reads of a file, in each of its lifetimes on average.
_READS = 1.0
_SHORTEST_BETWEEN_READS = 5.0


@dataclass
class Result:
    """What came of a world."""

    world: World
    checks: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    token_years: float = 0.0
    violation: Violation | None = None
    trace: tuple[str, ...] = ()


class Run(Deeds):
    """One world while it lives."""

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


@contextmanager
def _quiet() -> Iterator[None]:
    """The log goes to the checks alone."""
    before = LOGGER.handlers, LOGGER.level, LOGGER.propagate
    try:
        yield
    finally:
        LOGGER.handlers, LOGGER.level, LOGGER.propagate = before


def run(world: World) -> Result:
    """Run one world to its end, or to the first violation."""
    result = Result(world)
    directory = tempfile.mkdtemp(prefix="simulation-", dir="/dev/shm")
    living = Run(world)
    living.directory = directory
    try:
        with _quiet():
            listen(living.checks)
            living.run()
    except Violation as violation:
        result.violation = violation
    except Exception as error:  # noqa: BLE001 - a bug of the code under test is a violation too
        result.violation = Violation("bug", "".join(traceback.format_exception(error)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result.checks, result.counts = living.checks.made, living.counts
    result.token_years = len(world.targets) * living.kernel.now / (365.25 * 86400)
    if result.violation is not None:
        trace = living.checks.traces[result.violation.target]
        result.trace = tuple(f"{time:14.3f} {text}" for time, text in trace)
    result.counts["events"] = living.kernel.events
    result.counts["waits"] = living.kernel.waits
    return result

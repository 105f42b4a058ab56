"""Runs one world, to its end or to the first violation."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bearerd.log import LOGGER
from simulation.alone import Run
from simulation.checks import Violation
from simulation.describe import World
from simulation.fleet import Fleet


@dataclass
class Result:
    """What came of a world."""

    world: World
    checks: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    token_years: float = 0.0
    violation: Violation | None = None
    trace: tuple[str, ...] = ()


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
    living = Fleet(world) if world.machines else Run(world)
    living.directory = directory
    try:
        with _quiet():
            living.listen()
            living.run()
    except Violation as violation:
        result.violation = violation
    except Exception as error:  # noqa: BLE001 - a bug of the code under test is a violation too
        result.violation = Violation("bug", "".join(traceback.format_exception(error)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result.checks, result.counts = living.made(), Counter(living.counts)
    result.token_years = max(1, len(world.machines)) * len(world.targets) * living.kernel.now / (365.25 * 86400)
    if result.violation is not None:
        trace = living.trace(result.violation.target)
        result.trace = tuple(f"{time:14.3f} {text}" for time, text in trace)
    result.counts["events"] = living.kernel.events
    result.counts["waits"] = living.kernel.waits
    return result

"""Faults that are put into the code for a while, to show that the simulation finds them.

Each changes what the code does, and nothing of what is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from simulation.run import Result, run
from simulation.worlds import world_of

Patches = list[tuple[object, str, Any]]


@dataclass(frozen=True)
class Mutant:
    """A fault, and in which kind of world it shows soonest."""

    name: str
    meaning: str
    world: str
    patches: Callable[[], Patches]


@contextmanager
def broken_by(mutant: Mutant) -> Iterator[None]:
    """The code as it is with this fault."""
    patches = [patch.object(where, name, new) for where, name, new in mutant.patches()]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()


MOST_WORLDS: Final = 200
"""In which each fault has to show."""
_GRANTS: Final = 150
_GRANTS_OF_FLEETS: Final = 400
"""Five lifetimes."""


@dataclass(frozen=True)
class Found:
    """The first world in which a fault shows."""

    mutant: Mutant
    worlds: int
    result: Result | None
    """Of the last of them; None where the fault was not found, or the present code breaks an invariant there too."""


def find(mutant: Mutant, worlds: int = MOST_WORLDS) -> Found:
    """Put the fault back, and run worlds until it is found."""
    for seed in range(worlds):
        grants = _GRANTS_OF_FLEETS if mutant.world.startswith("fleet") else _GRANTS
        world = world_of(seed, mutant.world, grants)
        with broken_by(mutant):
            result = run(world)
        if result.violation is not None:
            # It is the fault that is found there, and nothing else.
            return Found(mutant, seed + 1, result if run(world).violation is None else None)
    return Found(mutant, worlds, None)

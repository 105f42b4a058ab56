"""Makes a world that breaks an invariant smaller, by leaving out what is not needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulation.describe import World
from simulation.run import Result, run


def _smaller(world: World) -> Iterator[World]:
    """The world without one of its faults, events, hosts or targets."""
    for index in range(len(world.faults)):
        yield replace(world, faults=world.faults[:index] + world.faults[index + 1 :])
    for index in range(len(world.events)):
        yield replace(world, events=world.events[:index] + world.events[index + 1 :])
    for machine in world.machines if len(world.machines) > 2 else ():
        yield replace(
            world,
            machines=tuple(each for each in world.machines if each is not machine),
            events=tuple(event for event in world.events if event.host != machine.number),
        )
    for kept in world.targets if len(world.targets) > 1 else ():
        name = kept.full_name
        yield replace(
            world,
            targets=tuple(each for each in world.targets if each is not kept),
            faults=tuple(fault for fault in world.faults if fault.of != name),
            events=tuple(event for event in world.events if event.of != name),
        )


def shrink(found: Result) -> Result:
    """The smallest world reached that breaks the same invariant."""
    progress = True
    while progress:
        progress = False
        for world in _smaller(found.world):
            result = run(world)
            if (result.violation, found.violation) != (None, None) and _kind(result) == _kind(found):
                found, progress = result, True
                break
    return found


def _kind(result: Result) -> str | None:
    return result.violation.invariant if result.violation else None

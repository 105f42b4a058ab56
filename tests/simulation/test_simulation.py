"""A few worlds of each kind, and what the simulation promises of itself. The long runs: `python -m simulation`.

Each fault that the simulation has to find is put into the code by `python -m simulation --faults`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.describe import Account, Kept, Server, World
from simulation.faults import broken_by, find
from simulation.fleet_worlds import BY_NAME
from simulation.mutants import MUTANTS
from simulation.run import run
from simulation.shrink import shrink
from simulation.table import story
from simulation.walk import WORLDS, walk
from simulation.worlds import KINDS, world_of

FEWER = {"herd": 1, "years": 3}
"""Worlds of the kinds that take longer."""
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", [make.__name__ for make, _ in KINDS])
def test_every_world_keeps_the_invariants(kind: str) -> None:
    for seed in range(FEWER.get(kind, 6)):
        result = run(world_of(seed, kind, grants=30))
        assert result.violation is None, story(result)


@pytest.mark.parametrize("kind", BY_NAME)
def test_every_fleet_keeps_the_invariants(kind: str) -> None:
    result = run(world_of(0, kind, grants=60))
    assert result.violation is None, story(result)


def test_the_same_seed_gives_the_same_run() -> None:
    program = (
        "from simulation.run import Run, run; from simulation.worlds import world_of; import simulation.run as r\n"
        "made = []; init = Run.__init__\n"
        "r.Run.__init__ = lambda self, *given: (made.append(self), init(self, *given))[1]\n"
        "for seed in range(8): print(sorted(run(world_of(seed, 'wild', 60)).counts.items()))\n"
        "for seed in range(2): print(sorted(run(world_of(seed, 'fleet_wild', 120)).counts.items()))\n"
        "for living in made:\n"
        "    for name, trace in living.checks.traces.items(): print(name, *trace)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(TESTS)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 10_000


def test_a_cold_start_whose_turns_wait_longer_than_an_offer_lasts_does_not_stall() -> None:
    # One CPU takes 6 s for a turn of each, and an offer is taken back after 5 s.
    names = [f"t{number}" for number in range(1500)]
    targets = tuple(Kept(f"c{number % 10}", name, lifetime=86400.0) for number, name in enumerate(names))
    accounts = tuple(Account(f"c{number}", "s0") for number in range(10))
    world = World(1, "cold", 300.0, (Server("s0"),), accounts, targets, turn_cost=0.004)
    result = run(world)
    assert result.violation is None, str(result.violation)
    assert result.counts["issued"] == len(names)


def test_a_world_that_fails_is_made_smaller_and_still_fails() -> None:
    mutant = next(each for each in MUTANTS if each.name == "L8")
    found = find(mutant).result
    assert found is not None
    with broken_by(mutant):
        small = shrink(found)
    assert small.violation is not None
    assert found.violation is not None
    assert small.violation.invariant == found.violation.invariant
    assert [event.deed for event in small.world.events] == ["limit"]
    assert len(small.world.targets) == 1


@pytest.mark.parametrize("name", WORLDS)
def test_every_order_of_requests_and_outcomes_keeps_the_invariants(name: str) -> None:
    found = walk(WORLDS[name](), depth=5)
    assert found.states > 500

"""A few hundred worlds, and what the simulation promises of itself. The long runs: `python -m simulation`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.run import run
from simulation.table import story
from simulation.worlds import KINDS, world_of

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", [make.__name__ for make, _ in KINDS])
def test_every_world_keeps_the_invariants(kind: str) -> None:
    for seed in range(60):
        result = run(world_of(seed, kind, grants=40))
        assert result.violation is None, story(result)


def test_the_same_seed_gives_the_same_run() -> None:
    program = (
        "from simulation.run import Run, run; from simulation.worlds import world_of; import simulation.run as r\n"
        "made = []; init = Run.__init__\n"
        "r.Run.__init__ = lambda self, world: (made.append(self), init(self, world))[1]\n"
        "for seed in range(20): print(sorted(run(world_of(seed, 'wild', 60)).counts.items()))\n"
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

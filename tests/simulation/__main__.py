"""Simulates the daemon: `cd tests && python -m simulation`. Exits 1 if an invariant is broken.

Worlds of consecutive seeds run over the real code in simulated time until there are enough of them: first those of one
daemon, then fleets. A violation is printed with its world and the last events of its target; `--shrink` makes that
world smaller first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from simulation.faults import Found, find
from simulation.fleet_mutants import FLEET_MUTANTS
from simulation.fleet_worlds import BY_NAME
from simulation.mutants import MUTANTS
from simulation.run import Result, run
from simulation.shrink import shrink
from simulation.table import Table, story
from simulation.walk import WORLDS, Walk, walk
from simulation.worlds import ANY_FLEET, KINDS, world_of
from support.rig import say

_LONG_TOKEN_YEARS = 20_000.0
_FLEETS = 90
_ALL_FAULTS = (*MUTANTS, *FLEET_MUTANTS)
_SHOWN = 3
_AHEAD = 4


def main() -> int:
    """All that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--worlds", type=int, help="so many worlds")
    parser.add_argument("--token-years", type=float, help="worlds until there are so many (default: 1000)")
    parser.add_argument("--seconds", type=float, help="worlds for so long")
    parser.add_argument("--long", action="store_true", help=f"{_LONG_TOKEN_YEARS:,.0f} token-years")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    kinds = [*(make.__name__ for make, _ in KINDS), *BY_NAME]
    parser.add_argument("--kind", default="", choices=["", *kinds], help="of all worlds")
    parser.add_argument("--fleets", type=int, help=f"so many worlds, all of them fleets (default: {_FLEETS} besides)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes")
    parser.add_argument("--shrink", action="store_true", help="make the first world that fails smaller")
    parser.add_argument("--walk", type=float, metavar="SECONDS", help="instead: every order, over the pure core")
    parser.add_argument("--faults", action="store_true", help="instead: put known faults into the code, and find each")
    given = parser.parse_args()
    if given.faults:
        return _faults(given.jobs)
    if given.walk is not None:
        return _walk(given.walk, given.jobs)
    if given.long:
        given.token_years = _LONG_TOKEN_YEARS
    failed = 0
    asked = given.worlds is not None or given.token_years is not None or given.seconds is not None
    if given.fleets is None or given.kind:
        given.token_years = given.token_years if asked else 1000.0
        failed = _simulate(given, given.kind)
    if not given.kind and (given.fleets is not None or not asked or given.long):
        given.worlds, given.token_years = given.fleets or _FLEETS, None
        failed |= _simulate(given, ANY_FLEET)
    return failed


def _simulate(given: argparse.Namespace, kind: str) -> int:
    began, table = time.monotonic(), Table()
    for result in _results(given.seed, kind, given.jobs):
        table.add(result)
        enough = (
            (given.worlds is not None and table.worlds.total() >= given.worlds)
            or (given.token_years is not None and table.token_years >= given.token_years)
            or (given.seconds is not None and time.monotonic() - began >= given.seconds)
        )
        if enough or len(table.violations) >= _SHOWN:
            break
    for found in table.violations:
        say(story(shrink(found) if given.shrink and found is table.violations[0] else found) + "\n")
    say(table.text())
    say(f"seconds      {time.monotonic() - began:.0f}")
    return 1 if table.violations else 0


def _walk(seconds: float, jobs: int) -> int:
    """Walk all worlds at the same time, as far as the processes allow."""
    each = seconds * min(jobs, len(WORLDS)) / len(WORLDS)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        for name, found in zip(WORLDS, pool.map(_walked, WORLDS, [each] * len(WORLDS)), strict=True):
            say(f"walk: {name:<24} depth {found.depth}, {found.states:,} states, {found.steps:,} steps")
    return 0


def _walked(name: str, seconds: float) -> Walk:
    return walk(WORLDS[name](), seconds=seconds)


def _faults(jobs: int) -> int:
    missed = 0
    say(f"{'fault':<6}{'what it was':<62}{'found by':<10}{'seed':>6}{'worlds':>8}  of kind")
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        for number, mutant in enumerate(_ALL_FAULTS):
            found = pool.submit(_found, number).result()
            row = f"{mutant.name:<6}{mutant.meaning:<62}"
            if found.result is None or found.result.violation is None:
                missed += 1
                say(f"{row}NOT FOUND in {found.worlds} worlds")
            else:
                seed, by = found.result.world.seed, f"({found.result.violation.invariant})"
                say(f"{row}{by:<10}{seed:>6}{found.worlds:>8}  {mutant.world}")
    return 1 if missed else 0


def _results(seed: int, kind: str, jobs: int) -> Iterator[Result]:
    """The results of consecutive seeds, in their order."""
    seeds = ((number, kind) for number in range(seed, sys.maxsize))
    if jobs <= 1:
        yield from map(_world, seeds)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"))
    try:
        ahead = deque(pool.submit(_world, next(seeds)) for _ in range(_AHEAD * jobs))
        while True:
            yield ahead.popleft().result()
            ahead.append(pool.submit(_world, next(seeds)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _world(what: tuple[int, str]) -> Result:
    return run(world_of(*what))


def _found(number: int) -> Found:
    return find(_ALL_FAULTS[number])


if __name__ == "__main__":
    raise SystemExit(main())

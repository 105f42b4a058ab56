"""A fleet of real daemons that share one client: `cd tests && python -m fleet [--daemons 50] [--short] [--scene NAME]`.

Daemons, a provider, readers that use the token files, and real servers: redis-server, and Valkey's if $BEARERD_VALKEY
names it. Daemons and servers are killed, stopped, emptied and replaced while tokens are refreshed. Prints a table; exit
1 where there were more grants than lifetimes, or a reader had a token that the API did not accept. Where it cannot run
it says SKIPPED, and why.
"""

from __future__ import annotations

import argparse
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet import limits, memory, outages, scenes, secured
from fleet.site import HEAD, Rig, Scene, line, shown
from support.redis_server import binaries
from support.rig import say

SCENES: dict[str, Scene] = {
    "lifetimes": scenes.lifetimes,
    # The longest ones start first, so that they are not what the short form waits for in the end.
    "alone": outages.alone,
    "wait": outages.wait,
    "refused": limits.refused,
    "holder": scenes.holder,
    "lost": outages.lost,
    "ended": outages.ended,
    "restarts": scenes.restarts,
    "promoted": outages.promoted,
    "replaced": outages.replaced,
    "bridged": outages.bridged,
    "corrected": limits.corrected,
    "rate": limits.rate,
    "secured": secured.secured,
    "entries": secured.entries,
    "plants": secured.plants,
    "memory": memory.memory,
}
_ON_EACH = {"lifetimes", "holder", "lost", "replaced", "promoted", "secured"}
"""Scenes that run on each server. The others are about the daemons, and run on the first."""
_AT_ONCE = 6
"""Scenes of the short form that run at the same time: most of their time is waiting."""


def main() -> int:
    """Run the scenes, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m fleet")
    parser.add_argument("--daemons", type=int, metavar="N", help="how many; 50, or 4 in the short form")
    parser.add_argument("--short", action="store_true", help="few daemons and lifetimes, and several scenes at once")
    parser.add_argument("--scene", action="append", choices=SCENES, help="these alone")
    parser.add_argument("--server", metavar="NAME", help="on this one alone: redis-server or valkey-server")
    given = parser.parse_args()
    servers = [binary for binary in binaries() if given.server in {None, Path(binary).name}]
    if not servers:
        say("SKIPPED: apt-get install redis-server, or name Valkey's server in $BEARERD_VALKEY")
        return 0
    count = given.daemons or (4 if given.short else 50)
    began = time.monotonic()
    say(line(*HEAD))
    with ThreadPoolExecutor(_AT_ONCE if given.short else 1) as pool:
        done = [
            pool.submit(run, name, Rig(count, 3 if given.short else 10, 12.0 if given.short else 20.0, binary))
            for binary in servers
            for name in given.scene or SCENES
            if binary == servers[0] or name in _ON_EACH
        ]
    good = all(future.result() for future in done)
    say(f"all of it in {time.monotonic() - began:.0f} s")
    return 0 if good else 1


_output = threading.Lock()


def run(name: str, rig: Rig) -> bool:
    """Run a scene, and print its rows; whether nothing was wrong."""
    try:
        for row in SCENES[name](rig):
            with _output:
                say(f"{shown(row)}")
    except Exception:  # noqa: BLE001 - the other scenes run on
        with _output:
            say(f"FAILED: {name} on {Path(rig.binary).name}: {traceback.format_exc()}")
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())

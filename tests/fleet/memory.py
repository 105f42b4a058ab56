"""What the extra costs: nothing where no share is configured, and how much where one is."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from fleet.daemons import Member
from fleet.scenes import LONG
from fleet.site import STARTS_WITHIN, Rig, Row, Site, site
from support.redis_server import redis_server

_MODULES = ("redis", "cryptography")


def memory(rig: Rig) -> Iterator[Row]:
    """The resident memory of daemons with one token, without and with a share."""
    # Python then writes each module that it imports to the log.
    listing = {"PYTHONPROFILEIMPORTTIME": "1"}
    with site(rig, None, lifetime=LONG, environment=listing) as here:
        here.fleet.start()
        here.readers.wait_for(lambda: all(here.readers.held().values()), "all files have a token", STARTS_WITHIN)
        for member in here.fleet.members.values():
            extra = imported(member)
            assert not extra, f"{member.name} imported {', '.join(sorted(extra))} without a share"
        without = resident(here)
        yield here.row("without a share", 1, here.provider.grants, rig.daemons, f"{without:.1f} MiB each")
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=LONG, environment=listing) as here:
        here.up()
        here.link_up()
        for member in here.fleet.members.values():
            assert imported(member) == set(_MODULES), f"{member.name} did not import {_MODULES}: is this test blind?"
        shared = resident(here)
        said = f"{shared:.1f} MiB each: {shared - without:+.1f} MiB"
        yield here.row("with a share", 1, here.provider.grants, 1, said)


def resident(here: Site) -> float:
    """The median of what the daemons have in memory, in MiB."""
    found = []
    for member in here.fleet.members.values():
        assert member.process is not None
        status = Path(f"/proc/{member.process.pid}/status").read_text()
        found.append(int(re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[0]) / 1024)
    return statistics.median(found)


def imported(member: Member) -> set[str]:
    """Which of the extra's modules the daemon imported."""
    names = re.findall(r"^import time:.*\| *([\w.]+)$", (member.directory / "log").read_text(), re.MULTILINE)
    return {name.partition(".")[0] for name in names} & set(_MODULES)

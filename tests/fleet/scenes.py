"""Scenes in which the server works: lifetimes, restarts, and what happens to the daemon that makes the grant."""

from __future__ import annotations

import shutil
import signal
import statistics
import time
from collections.abc import Iterator

from fleet.site import STARTS_WITHIN, Rig, Row, Site, pause, site
from support.process import eventually
from support.redis_server import RedisServer, redis_server

LONG = 3600.0
"""Seconds: a lifetime that does not end during a scene."""
ENDS_OLD = 5.0
"""Seconds for which an old token is accepted after a new one."""


def lifetimes(rig: Rig) -> Iterator[Row]:
    """Each lifetime is one grant, and all daemons have its token soon."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis) as here:
        here.up()
        here.link_up()
        before = here.readers.wait_for_one(0)
        last, grants = here.through(rig.lifetimes)
        yield here.row("lifetimes", rig.lifetimes, grants, rig.lifetimes, arrival(here, before, last))


def arrival(here: Site, before: int, last: int) -> str:
    """How long after the provider issued a token the file of each daemon had it."""
    issued = {token.number: token.wall for token in here.provider.tokens}
    took = sorted(
        seen.taken[number] - issued[number]
        for seen in here.readers.seen.values()
        for number in range(before + 1, last + 1)
    )
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return f"issued to file: median {cuts[49]:.2f} s, 99 % {cuts[98]:.2f} s, last {took[-1]:.2f} s"


def restarts(rig: Rig) -> Iterator[Row]:
    """The whole fleet starts, again and again: a good token is used, and one that is not costs one grant."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=LONG) as here:
        here.up()
        yield here.row("cold start", 0, here.provider.grants, 1)

        here.fleet.end()
        here.fleet.start()
        here.link_up()
        yield here.row("restart, good token", 0, here.provider.grants - 1, 0)

        here.fleet.end()
        redis.restart()
        here.fleet.start()
        here.link_up()
        yield here.row("restart of all, and an empty server", 0, here.provider.grants - 1, 0)

        here.readers.excuse(*here.fleet.members)
        here.fleet.end()
        for member in here.fleet.members.values():
            shutil.rmtree(member.tokens)
        here.fleet.start()
        here.link_up()
        eventually(lambda: all(file.exists() for file in here.fleet.files.values()))
        here.readers.expect(*here.fleet.members)
        yield here.row("restart without records", 0, here.provider.grants - 1, 0)

        # A token that ends while no daemon runs.
        here.provider.lifetime = rig.lifetime
        here.refresh("d01", 1)
        here.readers.excuse(*here.fleet.members)
        here.fleet.end()
        before = here.provider.grants
        pause(max(0.0, here.provider.tokens[-1].expires - time.monotonic()))
        here.provider.lifetime = LONG
        here.fleet.start()
        here.readers.wait_for_one(before, within=STARTS_WITHIN)
        here.readers.expect(*here.fleet.members)
        here.link_up()
        yield here.row("restart, expired token", 0, here.provider.grants - before, 1)


def holder(rig: Rig) -> Iterator[Row]:
    """The daemon that makes the grant is killed, or stopped for longer than its lock is valid."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis) as here:
        here.up()
        here.link_up()
        before = here.provider.grants
        with here.provider.holding() as held:
            here.readers.excuse(held.by)
            here.fleet.end(held.by, by=signal.SIGKILL)
            others = here.readers.wait_for_one(before, {held.by})
        here.provider.wait_for(lambda: here.provider.grants >= others + 1, "the answer to the killed daemon")
        here.fleet.start(held.by)
        here.link_up(held.by)
        here.readers.wait_for_one(others)
        here.readers.expect(held.by)
        last, _ = here.through(1)
        lived = here.agreed(before, last, {held.by})
        yield here.row("killed in a grant", lived, last - before, lived + 1)

        yield stopped_in_grant(here, redis)
        yield stopped_idle(here)


def stopped_in_grant(here: Site, redis: RedisServer) -> Row:
    """Its reply is there when it goes on, but the fleet has a newer token by then."""
    before = here.readers.wait_for_one(0)
    with here.provider.holding() as held:
        here.readers.excuse(held.by)
        here.fleet.members[held.by].pause()
        late = here.provider.grants + 1
    # Its token was issued to a process that does not read it.
    here.provider.wait_for(lambda: here.provider.grants >= late, "the answer")
    newer = here.readers.wait_for_one(late, {held.by})
    fence = fence_in(redis)
    here.fleet.members[held.by].send(signal.SIGCONT)
    here.readers.wait_for(lambda: here.readers.seen[held.by].number >= newer, f"{held.by} has t-{newer}")
    assert fence_in(redis) >= fence, "an older token replaced a newer one in the server"
    here.readers.expect(held.by)
    last, _ = here.through(1)
    had = [name for name, seen in here.readers.seen.items() if late in seen.taken]
    assert not had, f"t-{late} came after t-{newer}, and was published by {', '.join(had)}"
    assert not any(seen.back for seen in here.readers.seen.values()), "an older token replaced a newer one"
    lived = here.agreed(before, last, {held.by})
    return here.row("stopped in a grant, continued", lived, last - before, lived + 1, "its token was never published")


def stopped_idle(here: Site) -> Row:
    """A daemon is stopped for two lifetimes; then it takes the present token, without a grant of its own."""
    name = next(iter(here.fleet.members))
    before = here.readers.wait_for_one(0)
    here.readers.excuse(name)
    here.fleet.members[name].pause()
    here.through(2, {name})
    here.fleet.members[name].send(signal.SIGCONT)
    here.readers.wait_for_one(0)
    here.readers.expect(name)
    last, _ = here.through(1)
    lived = here.agreed(before, last, {name})
    return here.row("stopped for two lifetimes, continued", lived, last - before, lived)


def fence_in(redis: RedisServer) -> int:
    """The fencing number of the token in the server."""
    with redis.admin() as client:
        fences = [client.hget(key, "fence") for key in client.scan_iter(_type="HASH") if client.hexists(key, "sealed")]
    [fence] = [int(fence) for fence in fences if fence is not None]  # a failure has none
    return fence

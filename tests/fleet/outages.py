"""Scenes in which the server fails while tokens are refreshed, and comes back."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis.exceptions import OutOfMemoryError

from fleet.scenes import ENDS_OLD, LONG, fence_in
from fleet.site import SHORT, Rig, Row, Site, share_of, site, token_of
from support.process import eventually
from support.redis_server import RedisServer, redis_server, sentinel

_FILLER, _FILLERS = 1 << 16, 32
"""Bytes of each value that fills a server, and how many there is room for: few, so that those of the fleet are hit."""


def alone(rig: Rig) -> Iterator[Row]:
    """The server is gone for a lifetime: each daemon makes its own grants, and afterwards one makes them for all."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis, timeout=SHORT) as here:
        here.up()
        yield outage(here, "alone: server killed", redis.stop, redis.start)
        yield outage(here, "alone: blackhole", redis.pause, redis.resume)
        yield outage(
            here,
            "alone: full (noeviction)",
            lambda: redis.ask("CONFIG", "SET", "maxmemory", "1"),
            lambda: redis.ask("CONFIG", "SET", "maxmemory", "0"),
        )


def wait(rig: Rig) -> Iterator[Row]:
    """The same with `wait`: each daemon keeps its token until shortly before its expiry, and only then goes alone."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis, when_unavailable="wait", timeout=SHORT) as here:
        here.up()
        yield outage(here, "wait: server killed", redis.stop, redis.start)
        yield outage(here, "wait: blackhole", redis.pause, redis.resume)


def outage(here: Site, scene: str, begin: Callable[[], object], end: Callable[[], object]) -> Row:
    """The server fails until each daemon has gone alone; once it is back, each lifetime is one grant again."""
    here.link_up()
    before = here.readers.wait_for_one(0)
    first = here.provider.grants
    begin()
    here.readers.wait_for_number(before + 1, within=3 * here.provider.lifetime)
    during = here.provider.grants - first
    end()
    here.link_up()
    here.readers.wait_for_one(here.provider.grants)
    since = here.provider.grants
    _, grants = here.through(2)
    here.requests_of_one()
    return here.row(
        scene, 2, grants, 2, f"{during} grants while it was away, {since - first - during} until all agreed"
    )


def lost(rig: Rig) -> Iterator[Row]:
    """The server loses what it had between two grants: the daemons give it their token again."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=2 * rig.lifetime) as here:
        here.up()
        here.link_up()
        yield between(here, "flushed", lambda: redis.ask("FLUSHALL"))
        yield between(here, "killed, restarted empty", redis.restart)
        with evicting(redis):
            yield evicted(here)


def between(here: Site, scene: str, event: Callable[[], object]) -> Row:
    """Something happens right after all have a new token."""
    before, _ = here.through(1)
    event()
    last = here.readers.wait_for_one(here.readers.wait_for_one(before))
    lived = here.agreed(before, last)
    return here.row(scene, lived, last - before, lived)


def evicted(here: Site) -> Row:
    """Each entry that is evicted may cost a grant, but no daemon makes more than it would make alone."""
    before = here.provider.grants
    for _ in range(2):
        here.readers.wait_for_number(here.provider.grants + 1, within=3 * here.provider.lifetime)
    grants = here.provider.grants - before
    here.requests_of_one()
    return here.row("evicting (allkeys-random)", 2, grants, range(2, 3 * here.rig.daemons))


@contextmanager
def evicting(redis: RedisServer) -> Iterator[None]:
    """Write to a server that has no room, and evicts random keys, during the block."""
    used = int(redis.ask("INFO", "memory")["used_memory"])
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    redis.ask("CONFIG", "SET", "maxmemory", str(used + _FILLERS * _FILLER))
    over = threading.Event()

    def fill() -> None:
        number = 0
        with redis.admin() as client:
            while not over.wait(0.25):
                number += 1
                with suppress(OutOfMemoryError):  # it did not find enough to evict
                    client.set(f"filler:{number}", "x" * _FILLER)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
        assert int(redis.ask("INFO", "stats")["evicted_keys"]) > 0
    finally:
        over.set()
        thread.join()


def replaced(rig: Rig) -> Iterator[Row]:
    """The server comes back with an old snapshot. Its token is still good, but the fleet has a newer one."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=LONG) as here:
        old = here.up()
        redis.ask("SAVE")
        snapshot = redis.directory / "dump.rdb"
        kept = redis.directory / "kept.rdb"
        shutil.copy(snapshot, kept)
        newer = here.refresh("d01", old)
        redis.stop()
        kept.replace(snapshot)
        redis.start()
        assert redis.ask("DBSIZE") > 0, "the snapshot was not loaded"
        here.link_up()
        # A daemon without records gets the newer one from the server, so the others have given it back by then.
        name, member = next(iter(here.fleet.members.items()))
        here.readers.excuse(name)
        here.fleet.end(name)
        shutil.rmtree(member.tokens)
        here.fleet.start(name)
        here.readers.wait_for_one(newer - 1)
        eventually(member.file.exists)
        here.readers.expect(name)
        assert not any(seen.back for seen in here.readers.seen.values()), "an older token replaced a newer one"
        yield here.row("an old snapshot", 1, here.provider.grants - newer, 0)


def promoted(rig: Rig) -> Iterator[Row]:
    """A sentinel promotes the replica, since the primary is gone."""
    with (
        redis_server(binary=rig.binary) as primary,
        redis_server(binary=rig.binary, replica_of=primary) as replica,
        sentinel(primary) as watching,
        site(rig, {"url": watching.url}, lifetime=2 * rig.lifetime) as here,
    ):
        here.up()
        here.link_up()
        before, _ = here.through(1)
        primary.stop()
        last = here.readers.wait_for_one(before)
        last = here.readers.wait_for_one(last)
        assert replica.ask("INFO", "replication")["role"] == "master", "nothing was promoted"
        here.link_up()
        lived = here.agreed(before, last)
        yield here.row("replica promoted by a sentinel", lived, last - before, lived)


def ended(rig: Rig) -> Iterator[Row]:
    """A provider whose new token ends the old one soon, with `wait`: no reader ever has a token that was ended."""
    with (
        redis_server(binary=rig.binary) as redis,
        site(rig, redis, ends_old=ENDS_OLD, when_unavailable="wait") as here,
    ):
        here.up()
        here.link_up()
        _, grants = here.through(rig.lifetimes)
        yield here.row("old tokens end after 3 s", rig.lifetimes, grants, rig.lifetimes)
        yield killed_once_stored(here, redis)


def killed_once_stored(here: Site, redis: RedisServer) -> Row:
    """The holder is killed as soon as the server has its token, before it can write its own files."""
    before, _ = here.through(1)
    fence = fence_in(redis)
    here.provider.wait_for(lambda: here.provider.grants > before, "a grant")
    name = here.provider.tokens[before].to
    here.readers.excuse(name)
    eventually(lambda: fence_in(redis) > fence)
    here.fleet.end(name, by=signal.SIGKILL)
    here.readers.wait_for_one(before, {name})
    here.fleet.start(name)
    here.link_up(name)
    here.readers.wait_for_one(before)
    here.readers.expect(name)
    last, _ = here.through(1)
    lived = here.agreed(before, last, {name})
    return here.row("the same, holder killed once stored", lived, last - before, lived)


def bridged(rig: Rig) -> Iterator[Row]:
    """The server is gone while a refresh is due: all wait for it with their good token, and one makes the grant."""
    with (
        redis_server(binary=rig.binary) as redis,
        site(rig, redis, lifetime=LONG, ends_old=ENDS_OLD, when_unavailable="wait") as here,
    ):
        here.up()
        here.link_up()
        before = here.readers.wait_for_one(0)
        redis.stop()
        for member in here.fleet.members.values():
            eventually(lambda member=member: share_of(member)["state"] == "down")
        for member in here.fleet.members.values():
            here.ask_refresh(member.name)
        for member in here.fleet.members.values():
            eventually(lambda member=member: token_of(member).get("held_by") == "share_unavailable")
        redis.start()
        here.readers.wait_for_one(before)
        here.link_up()
        yield here.row("server away when due, old tokens end", 1, here.provider.grants - before, 1)

"""What every scene has: servers, a provider, a fleet and its readers, and the row that comes of it."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bearerd.cli.ask import NoAnswer, ask_status
from fleet.daemons import CLIENT, Fleet, Member, fleet
from fleet.provider import SCOPE, Provider, providing
from fleet.readers import Readers
from support.process import WITHIN, bearerd, eventually
from support.redis_server import RedisServer

KEY = "h9m2+kRZ4cUqT1vY8sWx0LbN5eJdA7fG"
"""Of `share.key`."""
STARTS_WITHIN = 10 * WITHIN
"""Seconds in which all daemons have their first token: fifty processes start on two cores."""
PATIENT, SHORT = 10.0, 2.0
"""Seconds of `share.redis.timeout`: for daemons that all start at once on one machine, and for servers that fail."""


@dataclass(frozen=True)
class Rig:
    """How large the scenes are."""

    daemons: int
    lifetimes: int
    lifetime: float
    """Seconds."""
    binary: str
    """The server."""


@dataclass
class Row:
    """What a scene came to."""

    scene: str
    server: str
    daemons: int
    lifetimes: int
    grants: int
    expected: range
    """How many grants there may be."""
    counts: Mapping[str, int]
    """Reads that were not good, by what the API answered or what was wrong with the file."""
    other: str = ""


HEAD = ("scene", "server", "daemons", "lifetimes", "grants", "expected", "expired", "refused", "absent", "other")
_WIDTHS = (36, 13, 7, 9, 6, 9, 7, 7, 6, 0)


def line(*cells: object) -> str:
    """A line of the table."""
    return "  ".join(f"{cell!s:{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def shown(row: Row) -> str:
    """A row as a line."""
    least, most = row.expected[0], row.expected[-1]
    refused = row.counts.get("ended", 0) + row.counts.get("unknown", 0) + row.counts.get("empty", 0)
    return line(
        row.scene, row.server, row.daemons, row.lifetimes, row.grants, least if least == most else f"{least} to {most}",
        row.counts.get("expired", 0), refused, row.counts.get("absent", 0), row.other,
    )  # fmt: skip


@dataclass
class Site:
    """A provider, a fleet and its readers."""

    rig: Rig
    provider: Provider
    fleet: Fleet
    readers: Readers
    _counted: dict[str, int] = field(default_factory=dict)

    def up(self) -> int:
        """Start all daemons, and wait until all have one token; returns its number."""
        self.fleet.start()

        def one() -> bool:
            self.fleet.running()
            return len(set(self.readers.held().values())) == 1 and all(self.readers.held().values())

        self.readers.wait_for(one, "all files have one token", STARTS_WITHIN)
        return self.readers.wait_for_one(0)

    def through(self, lifetimes: int, but: set[str] | None = None) -> tuple[int, int]:
        """Wait until all files had so many further tokens, which are all that were issued; the last, and the grants.

        A token that some file never had is one grant too many: another daemon made one for the same lifetime.
        """
        names = self.readers.seen.keys() - (but or set())
        first = self.readers.wait_for_one(0, but)
        last = first
        for _ in range(lifetimes):
            last = self.readers.wait_for_one(last, but, 2 * self.provider.lifetime + WITHIN)
        for number in range(first + 1, last + 1):
            missing = [name for name in names if number not in self.readers.seen[name].taken]
            assert not missing, f"t-{number} is a second grant for one lifetime: {', '.join(missing)} never had it"
        return last, last - first

    def refresh(self, name: str, before: int) -> int:
        """Have a daemon refresh the token, and wait until all have the new one; returns its number.

        A daemon takes this request once a minute.
        """
        assert (done := self.ask_refresh(name)).returncode == 0, done.stderr
        return self.readers.wait_for_one(before)

    def ask_refresh(self, name: str) -> subprocess.CompletedProcess[str]:
        """Have a daemon refresh the token."""
        return bearerd("refresh", "--socket", self.fleet.members[name].socket, f"{CLIENT}/{SCOPE}")

    def link_up(self, *names: str) -> None:
        """Wait until the share of each of these daemons, or of all, is up."""
        for member in [self.fleet.members[name] for name in names or self.fleet.members]:
            eventually(lambda member=member: share_of(member)["state"] == "up", STARTS_WITHIN)

    def row(self, scene: str, lifetimes: int, grants: int, expected: int | range, other: str = "") -> Row:
        """End a scene: its row, with the reads that were not good since the last one."""
        expected = range(expected, expected + 1) if isinstance(expected, int) else expected
        counts = {
            name: count - self._counted.get(name, 0) for name, count in self.readers.counts.items() if name != "good"
        }
        self._counted = dict(self.readers.counts)
        row = Row(scene, Path(self.rig.binary).name, self.rig.daemons, lifetimes, grants, expected, counts, other)
        assert grants in expected, f"not the expected number of grants\n{shown(row)}"
        assert not any(counts.values()), f"{shown(row)}\n" + "\n".join(self.readers.faults)
        return row

    def agreed(self, before: int, last: int, but: set[str] | None = None) -> int:
        """How many of the tokens after `before`, up to `last`, were in all files: the lifetimes of the fleet."""
        seen = [seen for name, seen in self.readers.seen.items() if name not in (but or set())]
        return sum(all(number in one.taken for one in seen) for number in range(before + 1, last + 1))

    def requests_of_one(self) -> None:
        """No daemon asked twice for one lifetime."""
        by: dict[str, list[float]] = {}
        for at, name, status in self.provider.attempts:
            if status == 200:
                by.setdefault(name, []).append(at)
        for name, times in by.items():
            least = min(
                (later - earlier for earlier, later in itertools.pairwise(times)), default=self.provider.lifetime
            )
            assert least >= self.provider.lifetime / 4, f"{name} made two grants within {least:.1f} s"


def share_of(member: Member) -> dict[str, Any]:
    """The share in a daemon's status."""
    return shares_of(member)[0]


def shares_of(member: Member) -> list[dict[str, Any]]:
    """The shares in a daemon's status; none while it does not answer."""
    try:
        shares: list[dict[str, Any]] = ask_status(str(member.socket))[0]["shares"]
    except NoAnswer:
        return [{"state": "no answer"}]
    return shares


def token_of(member: Member) -> dict[str, Any]:
    """The token in a daemon's status; nothing while it does not answer."""
    try:
        tokens: list[dict[str, Any]] = ask_status(str(member.socket))[0]["tokens"]
    except NoAnswer:
        return {}
    return tokens[0]


@contextmanager
def site(
    rig: Rig,
    redis: Mapping[str, Any] | RedisServer | None,
    *,
    lifetime: float | None = None,
    ends_old: float | None = None,
    when_unavailable: str = "alone",
    key: bool = False,
    timeout: float = PATIENT,
    client: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """A fleet that is not started yet, and its readers, which read already.

    `redis` is `share.redis`, or its server; None: the daemons do not share. `key`: there is a `share.key`.
    """
    if isinstance(redis, RedisServer):
        redis = {"url": redis.url}
    share = None
    if redis is not None:
        share = {"redis": {"timeout": f"{timeout:.0f}s", **redis}, "when_unavailable": when_unavailable}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", dir="/tmp")))
        if share is not None and key:
            path = directory / "key"
            path.touch(0o600)
            path.write_text(KEY)
            share["key"] = {"file": str(path)}
        provider = stack.enter_context(providing(lifetime or rig.lifetime, ends_old))
        here = stack.enter_context(fleet(directory, rig.daemons, provider, share, client, more, environment))
        readers = Readers(provider, here.files)
        stack.enter_context(readers.reading())
        there = Site(rig, provider, here, readers)
        try:
            yield there
        except BaseException as error:
            error.add_note(f"readers: {readers.held()}\n" + "\n".join(readers.faults) + f"\n{here.logs()}")
            raise


def pause(seconds: float) -> None:
    """Let time pass, where the passing of time is the event."""
    threading.Event().wait(seconds)


Scene = Callable[[Rig], Iterator[Row]]

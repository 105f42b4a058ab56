"""A link to a server of a fleet, and what it reports, in order."""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from bearerd.clock import Clock, SystemClock, dice
from bearerd.share.link import RedisLink
from bearerd.terms import Redis
from support.process import WITHIN


class Reports:
    """A listener that remembers what it heard, in order."""

    def __init__(self) -> None:
        self.fences: dict[str, int] = {}
        """What it knows to be stored."""
        self.heard: queue.SimpleQueue[str | frozenset[str]] = queue.SimpleQueue()

    def known(self) -> dict[str, int]:
        """See `Listener`."""
        return dict(self.fences)

    def changed(self, names: Collection[str]) -> None:
        """See `Listener`."""
        self.heard.put(frozenset(names))

    def restored(self) -> None:
        """See `Listener`."""
        self.heard.put("restored")

    def lost(self) -> None:
        """See `Listener`."""
        self.heard.put("lost")

    def wait_for(self, what: str | set[str]) -> list[str | frozenset[str]]:
        """Wait for one report; returns those before it."""
        before: list[str | frozenset[str]] = []
        while (heard := self.heard.get(timeout=WITHIN)) != what:
            before.append(heard)
        return before


@contextmanager
def linked(
    redis: Redis,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    draw: Callable[[], float] = dice,
) -> Iterator[tuple[RedisLink, Reports]]:
    """Start a link, and stop it after the block."""
    reports = Reports()
    link = RedisLink(redis, environ or {}, clock or SystemClock(), draw, reports)
    link.start()
    try:
        yield link, reports
    finally:
        link.stop()

"""A link to the store of a fleet as one Python object (share_model.py), with a network that tests can cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bearerd.share.parts import LinkState, LinkView, Listener
from bearerd.share.types import Names, ShareUnavailable
from support.share_model import ModelStore

POLL = 5.0
"""Seconds between two polls."""
TIMEOUT = 2.0


@dataclass
class Network:
    """A server, and the links to it. `clock` returns the server's Unix time, `boot` the boot clock of the links."""

    clock: Callable[[], float]
    boot: Callable[[], float]
    store: ModelStore = field(init=False)
    links: list[ModelLink] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = ModelStore(self.clock, self.announce)

    def connect(self, _redis: object, listener: Listener) -> ModelLink:
        """A link for a listener."""
        link = ModelLink(self, listener)
        self.links.append(link)
        return link

    def announce(self, names: Names) -> None:
        """Publish to all that are subscribed."""
        for link in self.links:
            if link.cut or link.state != "up":
                continue
            if link.stopped:
                link.missed.append(names)
            else:
                link.listener.changed({names.token, names.client})


class _Commands:
    """The store as one link reaches it: a failed command marks the link as down."""

    def __init__(self, link: ModelLink) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Callable[..., Any]:
        command = getattr(self._link.network.store, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            link = self._link
            link.commands.append(name)
            if link.cut or name in link.failing:
                link.fail("the connection was refused; check the server")
                raise ShareUnavailable(link.error)
            result = command(*arguments, **keywords)
            link.heard = link.network.boot()
            return result

        return call


class ModelLink:
    """One daemon's link. `cut` is a partition; `stopped` a process that is paused."""

    def __init__(self, network: Network, listener: Listener) -> None:
        self.network = network
        self.listener = listener
        self.store: Any = _Commands(self)
        self.state: LinkState = "starting"
        self.since = network.boot()
        self.heard = -1e9
        self.cut = False
        self.stopped = False
        self.missed: list[Names] = []
        """Announcements that wait in the socket of a paused process."""
        self.failing: set[str] = set()
        """Commands that fail, although the server can be reached."""
        self.commands: list[str] = []
        """The names of the commands that were sent."""
        self.error = ""
        self.error_at: float | None = None
        self.errors = 0

    def start(self) -> None:
        """Connect."""
        self.poll()

    def stop(self) -> None:
        """Close."""
        self.cut = True
        if self in self.network.links:
            self.network.links.remove(self)

    def usable(self) -> bool:
        """Whether commands may be sent."""
        return self.state != "down"

    def fresh(self) -> bool:
        """Whether no change can have been missed."""
        return self.state == "up" and self.network.boot() - self.heard <= POLL + TIMEOUT

    def view(self) -> LinkView:
        """Its state."""
        return LinkView(self.state, self.since, self.error, self.error_at, self.errors)

    def poll(self) -> None:
        """What the link's thread does every few seconds: reconnect, or compare all fences."""
        if self.stopped:
            return
        if self.cut:
            self.fail("the connection timed out; check the network")
            return
        self.heard = self.network.boot()
        if self.state != "up":
            self.state, self.since = "up", self.heard
            self.listener.restored()
        for names in self.missed:
            self.listener.changed({names.token, names.client})
        self.missed.clear()
        known = self.listener.known()
        stored = dict(zip(known, self.network.store.fences(tuple(known)), strict=True))
        if different := {name for name, fence in known.items() if stored[name] != fence}:
            self.listener.changed(different)

    def fail(self, error: str) -> None:
        """Note that the server cannot be reached."""
        self.error, self.error_at = error, self.network.boot()
        self.errors += 1
        if self.state != "down":
            self.state, self.since = "down", self.network.boot()
        self.listener.lost()

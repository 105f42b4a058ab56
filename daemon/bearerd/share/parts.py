"""The interfaces between a fleet and its link to a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from bearerd.share.types import Store

LinkState = Literal["starting", "up", "down"]


@dataclass(frozen=True, slots=True)
class LinkView:
    """The state of a link. Times are those of the boot clock."""

    state: LinkState
    since: float
    error: str
    """The last error; empty before the first."""
    error_at: float | None
    errors: int


class Listener(Protocol):
    """Hears of changes at a server (fleet.py). Any thread may call it."""

    def known(self) -> Mapping[str, int]:
        """The fences that this daemon knows to be stored, by `Names.token`."""
        ...

    def changed(self, names: Collection[str]) -> None:
        """Note `Names.token` and `Names.client` that were announced, or whose fence differs from the known one."""
        ...

    def restored(self) -> None:
        """Note that the link is up, for the first time or again: anything may have changed."""
        ...

    def lost(self) -> None:
        """Note that the link went down, or that it could not be opened again."""
        ...


class Link(Protocol):
    """The link to one server (link.py)."""

    store: Store
    """Its commands. Each raises ShareUnavailable, and then marks the link as down."""

    def start(self) -> None:
        """Connect, and listen for changes."""
        ...

    def stop(self) -> None:
        """Close all connections."""
        ...

    def usable(self) -> bool:
        """Whether commands may be sent: it is not down."""
        ...

    def fresh(self) -> bool:
        """Whether no change can have been missed: it is subscribed, and has just heard from the server."""
        ...

    def view(self) -> LinkView:
        """Its state."""
        ...

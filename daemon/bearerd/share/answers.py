"""What a target's turn learns from its fleet. Pure. Times are in seconds, and those of the boot clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bearerd.grant.outcome import Failure
from bearerd.publish.record import Record
from bearerd.share.types import Names


@dataclass(frozen=True, slots=True)
class Taken:
    """A token of the fleet that is newer than the daemon's own. Its record has the fence.

    `obtained` has the wall clock of the daemon that requested it, and the boot clock of this machine, as the server's
    clock tells. The two may disagree.
    """

    record: Record
    next_due: float
    """When its provider is asked about it next, if it returned the same token again; in the past otherwise."""


@dataclass(frozen=True, slots=True)
class Lock:
    """The daemon makes the next grant of the fleet. It must end with `store`, `keep`, `fail` or `give_back`."""

    names: Names
    client_id: str
    fence: int
    failures: int
    """Attempts of the fleet for this target that failed in a row."""
    refusals: int
    """Refusals of the client in a row, by the whole fleet."""
    governed: bool
    """Whether the attempt counts as refused until it ends otherwise."""


@dataclass(frozen=True, slots=True)
class FleetFailure:
    """The last attempt of the fleet failed."""

    failure: Failure
    wait: float
    """Seconds until the next attempt of the fleet."""
    count: int
    """Failures in a row, this one included."""
    new: bool
    """Whether this daemon neither caused nor heard of it."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """The fleet allows no attempt yet, or its server is unavailable and the config says to wait for it."""

    reason: Literal["share", "share_unavailable", "rate_limit", "refused_limit"]
    wait: float
    """Seconds; `inf` if only the return of the server ends it."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The fleet cannot be asked: the daemon makes its own grant."""


Claimed = Lock | Taken | FleetFailure | Delayed | Alone


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target's request to make the next grant."""

    have: int
    """The fence of its token."""
    remaining: float
    """Seconds for which its token is valid; 0 without one."""
    last: bool
    """Whether it is the last attempt before expiry."""
    changed: float | None
    """Seconds since its credentials or its config changed."""
    requested: bool
    """Whether a user requested a new token before it is due."""

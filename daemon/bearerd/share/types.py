"""Claims to make a grant for the fleet, their answers, and what the store keeps. Pure.

A *fence* is a fencing number: an integer that grows with every lock, by the microseconds of Unix time when it was
given, so that it still grows after the server lost its data. The token with the greatest fence is the newest.

All waits are in seconds. `clock` is the server's Unix time in seconds: the one clock that the whole fleet sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from bearerd.terms import RateLimit

NEVER: Final = 0
"""The fence of no token."""
GREATEST_FENCE: Final = 2**52
"""The year 2112. A server that names a greater one is not to be believed. Lua computes exactly up to 2**53."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one target's entries in the store. They are hashes, which reveal nothing."""

    token: str
    """Of its token, its lock and its failures."""
    client: str
    """Of its client's refusals."""
    refused_limit: RateLimit
    rates: tuple[tuple[str, RateLimit], ...] = ()
    """Each `rate_limit` that its grants count against, with the name under which it is counted."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A daemon's request to make the next grant for its fleet."""

    have: int = NEVER
    """The fence of the token that it has, or of a stored one that it cannot read. A newer one is returned instead."""
    seen: int = NEVER
    """The greatest fence that it saw. The new one is greater."""
    lease: float = 12.0
    """Seconds after which the lock is free again, if the daemon is gone by then."""
    last: bool = False
    """The last attempt before expiry, which passes failures. The fleet makes one for each token."""
    changed: float | None = None
    """Seconds since its credentials or its config changed. Earlier failures of the client do not hold it back."""
    requested: bool = False
    """A user requested a new token before it is due. Such requests may use half of a rate limit."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The daemon has the lock. It must end with `store`, `keep`, `fail` or `give_back`."""

    fence: int
    clock: float
    failures: int
    """Attempts of the fleet for this target that failed since its last token, not counting refusals of its client."""
    refusals: int
    """Refusals of the client in a row, by the whole fleet."""
    governed: bool
    """Whether the client is refused at present, so that this attempt counts as refused until it ends otherwise."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A sealed token that is newer than the one that the daemon has."""

    fence: int
    clock: float
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Busy:
    """Another daemon has the lock, for `wait` seconds at most. Its end is announced."""

    wait: float


@dataclass(frozen=True, slots=True)
class Limited:
    """A limit of the fleet allows no attempt for `wait` seconds."""

    reason: Literal["rate_limit", "refused_limit"]
    wait: float


@dataclass(frozen=True, slots=True)
class Failing:
    """The fleet's last attempt failed, and the next one is due after `wait` seconds."""

    sealed: bytes = field(repr=False)
    """The failure."""
    wait: float
    count: int
    """Failures of this kind in a row, this one included."""
    whole_client: bool
    """Whether the client was refused, and not this target alone."""


Answer = Granted | Stored | Busy | Limited | Failing


@dataclass(frozen=True, slots=True)
class ShareView:
    """One server, for status and metrics. Times are those of the boot clock."""

    name: str
    """Its address without user and password, such as `rediss://redis.internal:6379/0`; or where its URL is read."""
    clients: tuple[str, ...]
    """The clients that share through it."""
    state: Literal["starting", "up", "down"]
    since: float
    """When the state began."""
    error: str
    """The last error: why it is down, or was; or why an entry in it cannot be used. Empty before the first."""
    error_at: float | None
    waiting: int
    """Tokens that wait for it, because `when_unavailable` is `wait`."""
    taken: int
    """Tokens that were taken from the fleet since the start."""
    stored: int
    """Tokens that were given to the fleet since the start."""
    errors: int
    """Errors since the start."""


class ShareUnavailable(Exception):  # noqa: N818 - a state, not a mistake
    """The server did not do what it was asked in time. The text says why, and after a semicolon what to do.

    It contains no password, no URL with one, and nothing that the server sent except the code of its error.
    """


class Store(Protocol):
    """What the server does, each at once and as a whole (redis_store.py). All methods raise ShareUnavailable."""

    def claim(self, names: Names, claim: Claim) -> Answer:
        """Take the lock of a target, or return why not."""
        ...

    def store(self, names: Names, fence: int, sealed: bytes, ttl: float) -> Stored | None:
        """Keep a new token for `ttl` seconds, announce it, free the lock and forget failures.

        Changes nothing but the lock if there is a newer token, which is returned. Without the lock it is an offer of a
        token that the server lost, or that was obtained without it.
        """
        ...

    def keep(self, names: Names, fence: int, wait: float) -> None:
        """The provider returned the token that the fleet has: no other daemon asks for `wait` seconds."""
        ...

    def fail(self, names: Names, fence: int, sealed: bytes, wait: float, *, whole_client: bool, refused: bool) -> None:
        """Note and announce a failure, after which the fleet waits. `refused`: whether the provider may count it."""
        ...

    def give_back(self, names: Names, fence: int) -> None:
        """Free the lock, announce that, and take back what `claim` counted: nothing was sent."""
        ...

    def read(self, names: Names) -> Stored:
        """The token that is stored. Without one, its fence is `NEVER`, and only its clock has a meaning."""
        ...

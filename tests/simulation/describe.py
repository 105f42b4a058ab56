"""What a world is made of: plain data, so that it can be printed, replayed, and made smaller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bearerd.terms import WhenUnavailable

Habit = Literal["fresh", "jwt", "same", "sliding", "unnamed", "zero", "cache", "cache_age"]
"""How a provider issues tokens for a target.

fresh      a new one for each request
jwt        the same, as a JWT
same       the same one until its end, `expires_in` counting down to 0 (Spring Security OAuth)
sliding    the same one for ever (ServiceNow, Doorkeeper with reuse)
unnamed    a new one, and no lifetime
zero       the same one for ever, with `expires_in: 0` (Mailchimp)
cache      JWTs behind a cache that repeats old bodies with the full `expires_in`
cache_age  opaque tokens behind a cache that says `Age`
"""
Form = Literal["seconds", "text", "date", "unix"]
"""How a lifetime is written."""

FaultKind = Literal[
    "refuse", "silence", "reset", "500", "503", "503_after", "429", "429_after", "html", "404", "expired", "401",
    "slow_401", "scope_401", "scope_400", "flaky",
]  # fmt: skip
"""What a provider does while a fault lasts.

refuse     no connection                        404        as of a deleted credential (Keystone)
silence    no answer before the timeout         expired    new tokens that have expired when they arrive
reset      the connection ends in the reply     401        refuses the client, whose secret is right
503_after  with Retry-After                     slow_401   refuses it, but only after the timeout
429_after  with Retry-After                     scope_401  refuses one target with a code that means the client
html       200 with a page                      scope_400  refuses one target with invalid_scope
flaky      503 for a part of the requests
"""

Deed = Literal[
    "step", "suspend", "kill", "restart", "remove", "put_back", "reschedule", "move", "rescope", "limit",
    "slots", "rotate", "mistype", "refresh", "fail_disk", "tamper",
    "stop", "cut", "outage", "slow", "flush", "failover", "restore", "store_step", "mute",
]  # fmt: skip
"""What happens to the machine, the daemon or its config.

step        the wall clock is set: `value` seconds          move        the file has another path
suspend     for `value` seconds                             rescope     another scope is asked for
kill        down for `value` seconds; `flag`: in an         limit       the client has another rate limit: `limit`
            attempt; `text` "bare": without state           slots       the provider has `value` slots
restart     TERM, down for `value` seconds                  rotate      another secret; the daemon has it `value` s
                                                                        after (or before) the provider
remove      the target is taken out of the config           mistype     the daemon has a wrong secret for `value` s
put_back    it is there again                               refresh     requested; `flag`: instead of the present one
reschedule  another `refresh_before`: a share, `value`      fail_disk   every write fails for `value` seconds
                                                            tamper      somebody removes the file

In a fleet `host` says to which of its hosts it happens. These happen only there, all but the first two to its store:

stop        SIGSTOP, and SIGCONT after `value` seconds;     failover    a replica that lacks the last `lag` seconds
            `flag`: in an attempt; `text` "claim": before               takes over, after `value` seconds
            it hears that it has the lock
cut         the host cannot reach the store for `value` s   restore     the store has the data of `value` seconds ago
outage      `value` seconds; `flag`: no answer at all,      store_step  its clock is set: `value` seconds
            else connections are refused
slow        it answers too late for `value` seconds         mute        announcements are lost for `value` seconds
flush       all data is gone
"""


@dataclass(frozen=True)
class Server:
    """A provider."""

    name: str
    latency: float = 0.1
    """Seconds, more or less a half."""
    timeout: float = 10.0
    slots: int = 8
    ends_old: float | None = None
    """Seconds after which a new token ends the previous one of its target; None if it does not."""


@dataclass(frozen=True)
class Account:
    """A client."""

    name: str
    server: str
    limit: tuple[int, float] | None = None
    """Its rate limit: how many in how many seconds. The provider has the same."""
    tight: bool = False
    """Whether the limit does not cover what its targets need."""


@dataclass(frozen=True)
class Kept:
    """A target."""

    account: str
    name: str
    habit: Habit = "fresh"
    lifetime: float = 3600.0
    form: Form = "seconds"
    share: float = 0.2
    """Its `refresh_before`."""
    remove: bool = False
    """Its `on_expiry`."""
    delay: float = 0.0
    """Its `publish_delay`. Its provider needs half of that to replicate a new token, which is refused until then."""
    nbf: float = 0.0
    """Seconds after which a JWT is valid, as it says in `nbf`."""

    @property
    def full_name(self) -> str:
        """As the daemon names it."""
        return f"{self.account}/{self.name}"


@dataclass(frozen=True)
class Fault:
    """A provider is not well for a while."""

    kind: FaultKind
    start: float
    end: float
    of: str
    """The name of a server, an account or a target."""
    value: float = 0.0
    """Retry-After in seconds; of `flaky` the share of requests that fail."""


@dataclass(frozen=True)
class Event:
    """Something that is done at a moment."""

    time: float
    deed: Deed
    of: str = ""
    value: float = 0.0
    flag: bool = False
    text: str = ""
    limit: tuple[int, float] | None = None
    host: int | None = None
    """In a fleet: the number of its host; None for the whole fleet or its store."""


@dataclass(frozen=True)
class Machine:
    """One host of a fleet."""

    number: int
    starts: float = 0.0
    """When its daemon starts."""
    skew: float = 0.0
    """Seconds by which its wall clock is ahead."""


@dataclass(frozen=True)
class Store:
    """What a fleet shares its tokens through."""

    latency: float = 0.002
    """Seconds for one way, more or less a half."""
    timeout: float = 2.0
    when_unavailable: WhenUnavailable = "alone"
    key: bool = True
    """Whether a `share.key` seals the tokens, and not the client's secret."""
    lag: float = 2.0
    """Seconds of writes that a failover loses."""


@dataclass(frozen=True)
class World:
    """All of it."""

    seed: int
    kind: str
    seconds: float
    servers: tuple[Server, ...]
    accounts: tuple[Account, ...]
    targets: tuple[Kept, ...]
    faults: tuple[Fault, ...] = field(default=())
    events: tuple[Event, ...] = field(default=())
    turn_cost: float = 0.0
    """Seconds of CPU that a turn takes."""
    disk_delay: float = 0.0
    """Seconds that the removal of a file takes."""
    machines: tuple[Machine, ...] = field(default=())
    """The hosts of a fleet; empty in a world of one daemon that shares with nobody."""
    store: Store = field(default=Store())

    def text(self) -> str:
        """For people."""
        lines = [f"seed {self.seed}, kind {self.kind}, {self.seconds:.0f} s"]
        if self.machines:
            lines.append(f"  {self.store}")
        for parts in (self.machines, self.servers, self.accounts, self.targets, self.faults, self.events):
            lines += [f"  {part}" for part in parts]
        return "\n".join(lines)

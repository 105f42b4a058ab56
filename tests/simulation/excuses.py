"""When a file may lack a good token: after faults, for as long as the contract lets a target wait.

Each excuse covers a span. Within it, and for `before` seconds after it, a token may expire unrefreshed; `back` seconds
after it every file has a good token again. Every figure is a wait of the contract ("When"), with what comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from simulation.describe import FaultKind, Habit, Server

JITTER: Final = 1.2
"""Waits after Retry-After and 429 are up to 20 % longer at random."""
TRANSIENT: Final = 60.0
"""The longest backoff after a transient failure."""
RATE_LIMITED: Final = 600.0
MALFORMED: Final = 600.0
REFUSED: Final = 3600.0
"""The longest pace of a refused client, or target."""
LAST_ATTEMPT: Final = 30.0
"""The one more attempt comes at most this long before a token expires. A fault that ends later may have met it."""
LEDGER: Final = 120.0
"""Refused attempts of the last 2 min may use up the ledger, which holds the last attempt as well."""
UNSETTLED: Final = 160.0
"""An attempt in which the process was killed counts as refused for 2 min, from 40 s after it was sent at the latest."""
LOOP: Final = 3
"""So many of those use up the ledger of a client that is half-open, as it is after each start."""
LOOK: Final = 8.0
"""The main loop notices steps and suspends within this."""
PROBE: Final = 35.0
"""A client that worked is probed 30 s after it was refused. Until its next token nobody knows whether one of its
targets was meant alone."""
RETRY_INTERVAL: Final = 5.0
"""The slowest retry budget: after an outage, the first answer is at most this far away, and fills it."""
QUARTER: Final = 1.5
"""A retry comes within a quarter of what remained when the last one failed. So of what remained when the outage ended
it needs a third, and two thirds are left for the way: half as much again."""
FILES: Final = 10.0
"""The longest wait until files that could not be written are tried again."""
AT_ITS_END: Final = 10.0
"""A provider that gives the same token until its end replaces it only then: by the contract within ten seconds."""
HANGS: Final[frozenset[FaultKind]] = frozenset({"silence", "slow_401"})
"""Faults in which a request keeps its slot until the timeout."""
REFUSES: Final[frozenset[FaultKind]] = frozenset({"401", "slow_401", "scope_401", "scope_400"})
"""Faults after which a client, or a target, waits at the pace of refusals."""
HABIT: Final[Mapping[Habit, float]] = {"same": AT_ITS_END}
"""Seconds after its end for which a file may hold a token of such a provider."""


@dataclass(frozen=True)
class Excuse:
    """Why a target may be without a good token."""

    start: float
    end: float
    before: float
    """Seconds from its end in which a token may still expire unrefreshed."""
    back: float
    """Seconds from its end after which every file is good again."""
    what: str

    def covers(self, now: float, since: float) -> bool:
        """Whether a file may lack a good token at `now`, which it has lacked `since`."""
        return self.start <= now <= self.end + self.back and since <= self.end + self.before


def queue(server: Server, targets: int) -> float:
    """Seconds in which so many targets of a provider are served, one after the other where they must be."""
    return ceil(targets / server.slots) * 2 * server.latency + targets * server.latency + RETRY_INTERVAL


def of_fault(kind: FaultKind, value: float, wait: float, timeout: float) -> tuple[float, float]:
    """`before` and `back` for a fault; `wait` is what the queue takes."""
    way = timeout + wait
    last = LAST_ATTEMPT + way
    match kind:
        case "refuse" | "silence" | "reset" | "500" | "503" | "flaky":
            return QUARTER * way, TRANSIENT + way
        case "503_after":
            return last, max(JITTER * value, TRANSIENT) + way
        case "429":
            return last, JITTER * RATE_LIMITED + way
        case "429_after":
            return last, JITTER * max(value, TRANSIENT) + way
        case "html" | "404" | "expired":
            return last, MALFORMED + way
        case "401" | "slow_401" | "scope_401" | "scope_400":
            return LEDGER + last, REFUSED + way

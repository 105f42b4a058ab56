"""What admission is asked, what it answers, and the limits it keeps. Pure. Moments are those of the boot clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from bearerd.grant.outcome import Refused
from bearerd.model import Client, RateLimit

REFUSED_LIMIT: Final = RateLimit(count=4, window=120.0)
"""Creditsafe locks an account for 5 minutes after five identical bad requests in 2 minutes."""
# A grant may run a command for its secret (10 s) and look its endpoint up (one more request) before it sends.
_BESIDE_REQUEST: Final = 30.0

Reason = Literal["refused", "half_open", "refused_limit", "retry_budget", "rate_limit", "concurrency", "unknown_client"]
"""Why a target is held.

refused         the client, or this target, was refused: a later probe decides
half_open       the client did not get a token lately: it sends one attempt at a time (four, shortly after a token)
refused_limit   refused attempts, or attempts that may be refused, have used up `refused_limit`
retry_budget    the provider fails: retries share a budget
rate_limit      a `rate_limit` has no room, or the renewal is scheduled for later because the limit is scarce
concurrency     `max_concurrency` attempts are in flight
unknown_client  the present limits name no such client: the target is about to be removed
"""
BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A target that is due and asks to send one attempt."""

    name: str
    """The target's full name."""
    client: str
    expires: float | None = None
    """When its present token expires (also in the past); None if it has none."""
    lifetime: float = 0.0
    """Seconds that its present token is good in all; 0 if that is not known."""
    period: float = 0.0
    """Seconds from one refresh to the next as planned: lifetime less lead; 0 if that is not known."""
    failures: int = 0
    """Failed attempts since the last success."""
    retry: bool = False
    """Whether its last attempt failed as transient: it then draws on the provider's retry budget."""
    last_attempt: bool = False
    """The one more attempt before expiry: passes breaker and retry budget, not ledger, rate limits and slots."""
    requested: bool = False
    """Somebody asked for a new token before it is due: it may use half of a rate limit, no more."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to send one attempt. It must be settled, whatever happens; `sweep` settles it after `deadline`."""

    number: int
    ask: Ask
    granted: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Granted:
    """The target may send one attempt now."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Held:
    """The target may not ask now.

    Whoever holds the target gives it a turn when admission wakes it, and at the latest at `again`.
    """

    until: float
    """When it may be let go, as far as that is known: for people. `inf` where only an event tells."""
    reason: Reason
    again: float
    """When to request again if nothing wakes the target earlier: for the schedule."""


class Wake(NamedTuple):
    """A target that must request (again) at this moment; a moment that has passed means now."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What follows from an outcome."""

    until: float = 0.0
    """The earliest moment of this target's next attempt as far as refusals decide; 0 if it is not refused.

    For the log line. A refused target requests again at once and is held, so that changed credentials wake it; after
    any other failure it requests again when its own backoff is over.
    """


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client may do."""

    provider: str
    """Clients with the same text share slots and retry budget: the URL of the provider."""
    max_concurrency: int = 8
    refused_limit: RateLimit = REFUSED_LIMIT
    budgets: tuple[str, ...] = ()
    """The names of the rate limits that its attempts count against."""
    deadline: float = 10.0 + _BESIDE_REQUEST
    """Seconds after which a ticket that nobody settled counts as a timeout."""


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of a config."""

    clients: Mapping[str, ClientLimits] = field(default_factory=dict)
    rates: Mapping[str, RateLimit] = field(default_factory=dict)
    """Each `rate_limit`, by the name under which it is counted."""

    @staticmethod
    def of(clients: Iterable[Client]) -> Limits:
        """The limits that a config sets for these clients."""
        unique = {client.name: client for client in clients}
        return Limits(
            {
                name: ClientLimits(
                    provider=client.provider.url,
                    max_concurrency=client.provider.max_concurrency,
                    budgets=tuple(budget for budget, _ in client.budgets),
                    deadline=client.provider.timeout + _BESIDE_REQUEST,
                )
                for name, client in unique.items()
            },
            {budget: limit for client in unique.values() for budget, limit in client.budgets},
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a client, or a target on its own, is refused at present."""

    outcome: Refused
    attempts: int
    """Refusals in a row; one after which another secret was tried does not count."""
    next_probe: float
    own: bool
    """Whether it is the target's own: its siblings get tokens."""
    request: str = ""
    """`Target.fingerprint` of this target's last request that was refused; empty if there was none."""


@dataclass(frozen=True, slots=True)
class ClientView:
    """One client's breaker, for status and metrics."""

    state: BreakerState
    refusal: Refusal | None
    in_flight: int
    held: int


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One provider, for status and metrics."""

    in_flight: int
    max_concurrency: int
    retry_budget: float
    """Retries that may be sent at once."""
    held: Mapping[Reason, int]
    longest_wait: float
    """Seconds for which the target that waits longest has been held; 0 if none is."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything, for status and metrics."""

    clients: Mapping[str, ClientView]
    providers: Mapping[str, ProviderView]

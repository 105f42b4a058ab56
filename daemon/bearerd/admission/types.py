"""The requests, answers and limits of admission. Pure. All times are those of the boot clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from bearerd.grant.outcome import Refused
from bearerd.model import Client
from bearerd.terms import RateLimit

# Seconds for what the longest grant does not count: commands in the parameters of a token, the claim at a share, and a
# busy machine.
_BESIDE_REQUESTS: Final = 30.0

Reason = Literal[
    "refused",
    "half_open",
    "refused_limit",
    "retry_budget",
    "rate_limit",
    "concurrency",
    "unknown_client",
    "share",
    "share_unavailable",
]
"""Why a target is held.

refused         the client or this target was refused, and its next probe is not due yet
half_open       the client got no token in the last minute, so only one attempt (shortly after a token, four) may run
refused_limit   `refused_limit` is used up by attempts that were refused, or may yet be
retry_budget    the provider fails, and its retry budget is used up
rate_limit      a `rate_limit` is used up, or too small, so that the renewal waits until shortly before expiry
concurrency     `max_concurrency` attempts are in flight
unknown_client  the limits do not name its client: the target is about to be removed, or its client was just added

Two more come from the share of its client (share/fleet.py), not from admission:

share              another daemon of the fleet requests this token
share_unavailable  `when_unavailable` is `wait`, and the share cannot be used
"""
BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of a due target to send one attempt."""

    name: str
    """The target's full name."""
    client: str
    expires: float | None = None
    """When its current token expires, also in the past; None if it has no token."""
    lifetime: float = 0.0
    """The lifetime of its current token in seconds; 0 if unknown."""
    period: float = 0.0
    """Planned seconds from one refresh to the next: lifetime minus lead; 0 if unknown."""
    failures: int = 0
    """Failed attempts since the last success."""
    retry: bool = False
    """Whether its last attempt failed with a transient failure. It then draws on the provider's retry budget."""
    last_attempt: bool = False
    """The last attempt before expiry. Breaker and retry budget let it pass; ledger, rate limits and slots hold it."""
    requested: bool = False
    """A user requested a new token before it is due. Such requests may use half of a rate limit."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Permission to send one attempt. It must always be settled; `sweep` settles it after `deadline`."""

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
    """The target must not send an attempt now. It must ask again when it is woken, and at `again` at the latest."""

    until: float
    """When it may go, as far as that is known; `inf` if an event decides. For people."""
    reason: Reason
    again: float
    """When to request again if the target is not woken earlier. For the schedule."""


class Wake(NamedTuple):
    """A target that must request at this time; a time in the past means now."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of settling a ticket."""

    until: float = 0.0
    """When a refused target may try again; 0 if it is not refused. For the log line.

    A refused target requests again at once and is held, so that changed credentials wake it. After any other failure
    it requests again when its own backoff is over.
    """
    of_client: float = 0.0
    """When any target of the client may try again; the same if no other one waits."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits of one client."""

    provider: str
    """The URL of the provider. Clients with the same URL share slots and a retry budget."""
    max_concurrency: int
    refused_limit: RateLimit
    rates: tuple[str, ...]
    """Names of the rate limits that its attempts count against."""
    deadline: float
    """Seconds after which an unsettled ticket counts as a timeout. No grant takes as long."""


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of a config."""

    clients: Mapping[str, ClientLimits]
    rates: Mapping[str, RateLimit]
    """Each `rate_limit` by its name."""

    @staticmethod
    def of(clients: Iterable[Client]) -> Limits:
        """The limits that the config sets for these clients."""
        unique = {client.name: client for client in clients}
        return Limits(
            {
                name: ClientLimits(
                    provider=client.provider.url,
                    max_concurrency=client.provider.max_concurrency,
                    refused_limit=client.provider.refused_limit,
                    rates=tuple(name for name, _ in client.rate_limits),
                    deadline=client.longest_grant + _BESIDE_REQUESTS,
                )
                for name, client in unique.items()
            },
            {name: limit for client in unique.values() for name, limit in client.rate_limits},
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal that holds a client, or one target on its own."""

    outcome: Refused
    attempts: int
    """Refusals in a row, except those after which another secret was tried."""
    next_probe: float
    own: bool
    """Whether only this target is refused, while other targets of the client get tokens."""
    request: str = ""
    """`Target.fingerprint` of this target's last request that was refused; empty if there was none."""


@dataclass(frozen=True, slots=True)
class ClientView:
    """One client's breaker, for status and metrics."""

    state: BreakerState
    refusal: Refusal | None
    in_flight: int
    held: int
    """Targets that the breaker holds."""


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One provider, for status and metrics."""

    in_flight: int
    max_concurrency: int
    retry_budget: float
    """Retries that may be sent now."""
    held: Mapping[Reason, int]
    longest_wait: float
    """Seconds since the target that waits longest was first held; 0 if none is held."""


@dataclass(frozen=True, slots=True)
class View:
    """All breakers and providers, for status and metrics."""

    clients: Mapping[str, ClientView]
    providers: Mapping[str, ProviderView]

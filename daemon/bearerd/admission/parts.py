"""The state of providers, clients and the queues of waiting targets. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from bearerd.admission.breaker import Breaker
from bearerd.admission.ledger import Ledger
from bearerd.admission.queue import Queue
from bearerd.admission.rate import Kind, Rate
from bearerd.admission.retry import RetryBudget
from bearerd.admission.types import Ask, ClientLimits, Reason

Earliest = tuple[float, Reason]
"""The earliest moment at which an attempt may go (`inf`: an event decides), and the reason that holds it until then."""


class Terms(NamedTuple):
    """The constraints that apply to a request. Requests of one client with the same terms share a queue."""

    own: bool
    """The target is refused on its own."""
    last_attempt: bool
    retry: bool
    kind: Kind


class Provider:
    """Slots and retry budget, and the queues of targets that wait for them."""

    __slots__ = ("in_flight", "max_concurrency", "name", "queues", "retry")

    def __init__(self, name: str) -> None:
        self.name = name
        self.max_concurrency = 1
        self.in_flight = 0
        self.retry = RetryBudget()
        self.queues: dict[tuple[tuple[Rate, ...], Kind, bool], ProviderQueue] = {}

    @property
    def waiting(self) -> bool:
        """Whether any target waits for this provider."""
        return any(provider_queue.ready for provider_queue in self.queues.values())

    def queue(self, rates: tuple[Rate, ...], kind: Kind, *, retry: bool) -> ProviderQueue:
        """The queue for these constraints."""
        key = (rates, kind, retry)
        provider_queue = self.queues.get(key)
        if provider_queue is None:
            provider_queue = self.queues[key] = ProviderQueue(self, rates, kind, retry=retry)
        return provider_queue


class ProviderQueue:
    """Client queues under the same constraints of a provider: its retry budget, and rate limits that clients share.

    It holds only those whose own client lets them go.
    """

    __slots__ = ("armed", "changes", "kind", "provider", "rates", "ready", "retry")

    def __init__(self, provider: Provider, rates: tuple[Rate, ...], kind: Kind, *, retry: bool) -> None:
        self.provider = provider
        self.rates = rates
        self.kind = kind
        self.retry = retry
        self.ready: Queue[ClientQueue] = Queue()
        self.armed: tuple[str, float] | None = None
        """The target that requests at the earliest moment, and that moment."""
        self.changes: list[tuple[float, int, ClientQueue]] = []
        """A heap of the moments at which the most urgent target of a client queue changes without an event."""

    def earliest(self, now: float) -> Earliest:
        """When its next target may go if there is a slot."""
        until = self.provider.retry.earliest(now) if self.retry else now
        return _limited((until, "retry_budget"), self.rates, self.kind, now)


class Client:
    """One client: breaker, ledger, its own and shared rate limits, and the queues of its waiting targets."""

    __slots__ = (
        "breaker", "in_flight", "ledger", "limits", "name", "provider", "queues", "rates", "shared",
    )  # fmt: skip

    def __init__(self, name: str, limits: ClientLimits, provider: Provider) -> None:
        self.name = name
        self.limits = limits
        self.provider = provider
        self.rates: tuple[Rate, ...] = ()
        """The rate limits that no other client shares."""
        self.shared: tuple[Rate, ...] = ()
        self.breaker = Breaker()
        self.ledger = Ledger()
        self.queues: dict[Terms, ClientQueue] = {}
        self.in_flight = 0

    def terms(self, ask: Ask, now: float) -> Terms:
        """The constraints that apply to this request."""
        kind: Kind = "first"
        if ask.expires is not None and (self.rates or self.shared):
            kind = "requested" if ask.requested and ask.expires > now else "renewal"
        return Terms(ask.name in self.breaker.own, ask.last_attempt, ask.retry and not ask.last_attempt, kind)

    def queue(self, terms: Terms) -> ClientQueue:
        """The queue for these terms."""
        client_queue = self.queues.get(terms)
        if client_queue is None:
            provider_queue = self.provider.queue(self.shared, terms.kind, retry=terms.retry)
            client_queue = self.queues[terms] = ClientQueue(self, terms, provider_queue)
        return client_queue

    def governed(self, terms: Terms, now: float) -> bool:
        """Whether the ledger limits an attempt under these terms."""
        return terms.own or not self.breaker.closed(now)

    def earliest(self, terms: Terms, name: str, now: float) -> Earliest:
        """When target `name` may go under these terms, by the limits of its client alone."""
        breaker = self.breaker
        if self.in_flight >= self.limits.max_concurrency:
            return inf, "concurrency"
        until: float = now
        reason: Reason = "half_open"
        # A target that is refused on its own does not probe its client, and does not keep others from probing.
        if not terms.last_attempt and not (terms.own and breaker.refusal is None):
            until, reason = breaker.earliest(now, tried=name in breaker.tried)
        if self.governed(terms, now):
            at = self.ledger.earliest(self.limits.refused_limit, now)
            if at > until:
                until, reason = at, "refused_limit"
        return _limited((until, reason), self.rates, terms.kind, now)


class ClientQueue:
    """Targets of one client that wait under the same terms."""

    __slots__ = ("armed", "changes_at", "client", "earliest", "provider_queue", "targets", "terms")

    def __init__(self, client: Client, terms: Terms, provider_queue: ProviderQueue) -> None:
        self.client = client
        self.terms = terms
        self.provider_queue = provider_queue
        self.targets: Queue[str] = Queue()
        self.earliest: Earliest = (0.0, "concurrency")
        """As last computed for its client; in the past while it is in the provider's queue."""
        self.armed: tuple[str, float] | None = None
        """The target that requests at the earliest moment, and that moment."""
        self.changes_at = inf
        """When another target becomes its most urgent one. The provider's queue considers it again then."""


def _limited(earliest: Earliest, rates: Iterable[Rate], kind: Kind, now: float) -> Earliest:
    """The given moment, or that of a rate limit if it is later."""
    until, reason = earliest
    for rate in rates:
        at = rate.earliest(now, kind)
        if at > until:
            until, reason = at, "rate_limit"
    return until, reason


class Timed(NamedTuple):
    """A target that waits for its own due time, not for other targets."""

    client: str
    reason: Reason
    until: float

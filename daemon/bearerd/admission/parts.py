"""What the core keeps of providers, clients, and waiting targets. Pure."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from bearerd.admission.breaker import Breaker
from bearerd.admission.ledger import Ledger
from bearerd.admission.queue import Queue
from bearerd.admission.rate import Kind, Rate
from bearerd.admission.retry import RetryBudget
from bearerd.admission.types import Ask, ClientLimits, Reason

Opening = tuple[float, Reason]
"""The moment from which an attempt may go (`inf`: only an event tells), and what holds it until then."""


class Terms(NamedTuple):
    """Which constraints an ask faces: asks of one client with the same terms wait in one group."""

    own: bool
    """The target is refused on its own."""
    last_attempt: bool
    retry: bool
    kind: Kind


class Provider:
    """Slots and retry budget, and the lanes in which groups wait for them."""

    __slots__ = ("in_flight", "lanes", "max_concurrency", "name", "retry")

    def __init__(self, name: str) -> None:
        self.name = name
        self.max_concurrency = 1
        self.in_flight = 0
        self.retry = RetryBudget()
        self.lanes: dict[tuple[tuple[Rate, ...], Kind, bool], Lane] = {}

    @property
    def waiting(self) -> bool:
        """Whether any group waits in its lanes."""
        return any(lane.queue for lane in self.lanes.values())

    def lane(self, rates: tuple[Rate, ...], kind: Kind, *, retry: bool) -> Lane:
        """The lane for these constraints."""
        key = (rates, kind, retry)
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self, rates, kind, retry=retry)
        return lane


class Lane:
    """Groups that face the same constraints of their provider: its retry budget, and rate limits that clients share."""

    __slots__ = ("armed", "changes", "kind", "provider", "queue", "rates", "retry")

    def __init__(self, provider: Provider, rates: tuple[Rate, ...], kind: Kind, *, retry: bool) -> None:
        self.provider = provider
        self.rates = rates
        self.kind = kind
        self.retry = retry
        self.queue: Queue[Group] = Queue()
        self.armed: tuple[str, float] | None = None
        """Which target requests when the lane opens, and when that is."""
        self.changes: list[tuple[float, int, Group]] = []
        """A heap: when which group has another most urgent target, though nothing happened."""

    def opens(self, now: float) -> Opening:
        """When the next of its groups may go, slots apart."""
        until: float = now
        reason: Reason = "retry_budget"
        if self.retry:
            until = self.provider.retry.opens(now)
        for rate in self.rates:
            at = rate.opens(now, self.kind)
            if at > until:
                until, reason = at, "rate_limit"
        return until, reason


class Client:
    """One client: its breaker and ledger, the rate limits that are its own or shared, and its waiting groups."""

    __slots__ = (
        "breaker", "groups", "in_flight", "ledger", "limits", "name", "provider", "rates", "removed", "shared",
    )  # fmt: skip

    def __init__(self, name: str, limits: ClientLimits, provider: Provider) -> None:
        self.name = name
        self.limits = limits
        self.provider = provider
        self.rates: tuple[Rate, ...] = ()
        """Those that no other client shares."""
        self.shared: tuple[Rate, ...] = ()
        self.breaker = Breaker()
        self.ledger = Ledger()
        self.groups: dict[Terms, Group] = {}
        self.in_flight = 0
        self.removed = False

    def terms(self, ask: Ask, now: float) -> Terms:
        """Which constraints this ask faces."""
        kind: Kind = "first"
        if ask.expires is not None and (self.rates or self.shared):
            kind = "requested" if ask.requested and ask.expires > now else "renewal"
        return Terms(ask.name in self.breaker.own, ask.last_attempt, ask.retry and not ask.last_attempt, kind)

    def group(self, terms: Terms) -> Group:
        """The group of asks with these terms."""
        group = self.groups.get(terms)
        if group is None:
            lane = self.provider.lane(self.shared, terms.kind, retry=terms.retry)
            group = self.groups[terms] = Group(self, terms, lane)
        return group

    def governed(self, terms: Terms, now: float) -> bool:
        """Whether the ledger limits such an attempt."""
        return terms.own or not self.breaker.closed(now)

    def opens(self, terms: Terms, name: str, now: float) -> Opening:
        """When an attempt with these terms may go as far as the client is concerned; `name` is who would go."""
        breaker = self.breaker
        if self.in_flight >= self.limits.max_concurrency:
            return inf, "concurrency"
        until: float = now
        reason: Reason = "half_open"
        if terms.own or not breaker.just_worked(now):
            # A target that is refused on its own is no probe of its client, and keeps no other from probing.
            if not terms.last_attempt and not (terms.own and breaker.refusal is None):
                until, reason = breaker.opens(now, tried=name in breaker.tried)
            if self.governed(terms, now):
                at = self.ledger.opens(self.limits.refused_limit, now)
                if at > until:
                    until, reason = at, "refused_limit"
        for rate in self.rates:
            at = rate.opens(now, terms.kind)
            if at > until:
                until, reason = at, "rate_limit"
        return until, reason


class Group:
    """Targets of one client that wait under the same terms."""

    __slots__ = ("armed", "changes_at", "client", "lane", "opening", "queue", "terms")

    def __init__(self, client: Client, terms: Terms, lane: Lane) -> None:
        self.client = client
        self.terms = terms
        self.lane = lane
        self.queue: Queue[str] = Queue()
        self.opening: Opening = (0.0, "concurrency")
        """As its client was seen last; in the past while it stands in its lane."""
        self.armed: tuple[str, float] | None = None
        """Which target requests when the client lets it, and when that is."""
        self.changes_at = inf
        """When it is looked at next in its lane, because its most urgent target is another one then."""


class Timed(NamedTuple):
    """A target that waits for a moment of its own."""

    client: str
    reason: Reason
    until: float

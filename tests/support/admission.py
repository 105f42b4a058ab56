"""The core of admission in a simulated world of clock, targets and provider, and the invariants that always hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf

from bearerd.admission.core import Core
from bearerd.admission.ledger import replay
from bearerd.admission.parts import ClientQueue
from bearerd.admission.types import Ask, ClientLimits, Granted, Held, Limits, Ticket
from bearerd.grant.outcome import Failure, Issued, Malformed, Outcome, RateLimited, Refused, Transient, Unsent
from bearerd.terms import REFUSED_LIMIT, Instant, RateLimit, Token

ISSUED = Issued(Token("opaque", Instant(0.0, 0.0), 3600.0))
REFUSED = Refused("401 invalid_client")
OWN = Refused("400 invalid_scope", whole_client=False)
OTHER_SECRET = Refused("401 invalid_client", another_secret=True)
SILENCE = Transient("no reply", phase="wait")
NO_ROUTE = Transient("no route", phase="connect")
UNSENT = Unsent("no secret", phase="secret")
TOO_MANY = RateLimited("429")
HTML = Malformed("HTML")
OUTCOMES: tuple[Outcome | None, ...] = (
    ISSUED, REFUSED, OWN, OTHER_SECRET, SILENCE, NO_ROUTE, UNSENT, TOO_MANY, HTML, None,
)  # fmt: skip

PROVIDER = "https://login.example.com/token"


def limits(
    clients: Iterable[str] = ("c",),
    *,
    max_concurrency: int = 8,
    refused_limit: RateLimit = REFUSED_LIMIT,
    rates: dict[str, RateLimit] | None = None,
    provider: str = PROVIDER,
) -> Limits:
    """The limits of clients that are alike. They share every rate limit."""
    each = ClientLimits(provider, max_concurrency, refused_limit, tuple(rates or ()), 40.0)
    return Limits(dict.fromkeys(clients, each), rates or {})


def ask(name: str = "c/a", **changes: object) -> Ask:
    """A request of a target, whose name begins with its client's."""
    return replace(Ask(name, name.split("/", maxsplit=1)[0]), **changes)  # type: ignore[arg-type]  # a test's keywords


@dataclass(frozen=True)
class Attempt:
    """One attempt. The provider may count it at any moment from `sent` to `ended`."""

    client: str
    sent: float
    ended: float
    refused: bool
    reached: bool
    governed: bool


@dataclass
class World:
    """A core and its targets. Each target requests when it is woken, as its controller would."""

    limits: Limits
    now: float = 1000.0
    core: Core = field(init=False)
    asks: dict[str, Ask] = field(default_factory=dict)
    alarms: dict[str, float] = field(default_factory=dict)
    """When each target requests next."""
    tickets: dict[str, Ticket] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    log: list[Attempt] = field(default_factory=list)
    granted: list[str] = field(default_factory=list)
    journal: list[tuple[float, list[object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = Core(self.limits, None, self.now)

    # -- events --------------------------------------------------------------------------

    def add(self, name: str, **changes: object) -> None:
        """A target that is due now."""
        self.asks[name] = ask(name, **changes)
        self.alarms[name] = self.now

    def turn(self, name: str, **changes: object) -> Granted | Held | None:
        """Let the target request. Returns None if its attempt is in flight."""
        if name in self.tickets:
            return None
        if changes or name not in self.asks:
            self.asks[name] = replace(self.asks.get(name, ask(name)), **changes)  # type: ignore[arg-type]  # as above
        answer = self.core.request(self.asks[name], self.now)
        if isinstance(answer, Granted):
            self.tickets[name] = answer.ticket
            self.alarms.pop(name, None)
            self.held.pop(name, None)
            self.granted.append(name)
        else:
            self.alarms[name] = answer.again
            self.held[name] = answer
        self.follow()
        return answer

    def settle(self, name: str, outcome: Outcome | None) -> float:
        """End the target's attempt. Returns until when a refusal holds it."""
        ticket = self.tickets.pop(name)
        attempt = self.core._attempts.get(ticket.number)
        governed = attempt is not None and attempt.governed
        until = self.core.settle(ticket, outcome, self.now).until
        reached = not isinstance(outcome, Failure) or outcome.reached_the_endpoint
        refused = isinstance(outcome, Refused)
        self.log.append(Attempt(ticket.ask.client, ticket.granted, self.now, refused, reached, governed))
        known = self.asks[name]
        if isinstance(outcome, Issued):
            self.asks[name] = replace(known, failures=0, retry=False)
        else:
            retry = outcome is None or isinstance(outcome, Transient)
            self.asks[name] = replace(known, failures=known.failures + 1, retry=retry)
        self.follow()
        return until

    def follow(self) -> None:
        """Take the wakes and journal entries."""
        for name, at in self.core.take_wakes():
            if name not in self.tickets:  # inserted last, so that targets woken together keep their order
                self.alarms[name] = min(self.alarms.pop(name, inf), max(at, self.now))
        self.journal += [(self.now, entry) for entry in self.core.take_entries()]

    def due(self) -> str | None:
        """The target that is due first, if any is due."""
        name = min(self.alarms, key=lambda each: self.alarms[each], default=None)
        return name if name is not None and self.alarms[name] <= self.now else None

    def run(self) -> None:
        """Let all due targets request."""
        while (name := self.due()) is not None:
            del self.alarms[name]
            self.turn(name)

    def jump(self) -> bool:
        """Advance the time to the next request. Returns False if there is none."""
        if not self.alarms:
            return False
        self.now = max(self.now, min(self.alarms.values()))
        self.run()
        return True

    def restart(self, *, after: float = 0.0) -> None:
        """Kill the process, and restore another from its journal."""
        self.now += after
        past = replay((self.now - at, list(entry)) for at, entry in self.journal)
        for name, ticket in self.tickets.items():  # each may have been refused meanwhile
            attempt = self.core._attempts[ticket.number]
            ended = min(self.now, ticket.deadline)
            self.log.append(Attempt(ticket.ask.client, ticket.granted, ended, attempt.governed, True, attempt.governed))
            self.alarms[name] = self.now
        self.tickets.clear()
        self.held.clear()
        self.core = Core(self.limits, past, self.now)
        self.journal = [(self.now - age, entry) for age, entry in self.core.dump(self.now)]
        self.alarms = dict.fromkeys(self.asks, self.now)

    # -- invariants ----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError if an invariant is violated."""
        check_counts(self.core, self.limits)
        self.check_waiting()
        self.check_windows()

    def check_waiting(self) -> None:
        """No waiting target could go now, and an attempt in flight or a request in time will release each."""
        core = self.core
        for name in core.waiting.offers:
            assert self.alarms.get(name, inf) <= self.now + 5.0, f"{name} was not woken for its offer"
        for client in core.registry.clients.values():
            for client_queue in client.queues.values():
                self._check_queue(client_queue)
        for name, timed in core.waiting.timed.items():
            assert self.alarms.get(name, inf) <= max(timed.until, self.now), f"{name} does not request when it is due"

    def _check_queue(self, client_queue: ClientQueue) -> None:
        now, top = self.now, client_queue.targets.top(self.now)
        assert top is not None, "an empty queue was left behind"
        client, provider_queue = client_queue.client, client_queue.provider_queue
        at = max(client.earliest(client_queue.terms, top, now)[0], provider_queue.earliest(now)[0])
        provider = client.provider
        full = provider.in_flight >= provider.max_concurrency
        assert at > now or full, f"{top} waits, and could go"
        if at == inf or full:
            busy = client.in_flight + provider.in_flight + sum(rate.in_flight for rate in provider_queue.rates)
            assert busy, f"{top} waits for an outcome, and nothing is in flight"
            return
        # A request of any of them updates all of them.
        queues = provider_queue.ready if client_queue in provider_queue.ready else client.queues.values()
        first = min(self.alarms.get(name, inf) for each in queues for name in each.targets)
        assert first <= at, f"{top} may go in {at - now} s, and the next request is in {first - now} s"

    def check_windows(self) -> None:
        """No window has more attempts than a rate limit, nor more refused ones than the refused limit."""
        for name, each in self.limits.clients.items():
            ours = [attempt for attempt in self.log if attempt.client == name and attempt.governed]
            assert most_within([a for a in ours if a.refused], each.refused_limit.window) <= each.refused_limit.count
        flying = [
            Attempt(ticket.ask.client, ticket.granted, inf, False, True, False) for ticket in self.tickets.values()
        ]
        for name, limit in self.limits.rates.items():
            ours = [
                attempt
                for attempt in (*self.log, *flying)
                if attempt.reached and name in self.limits.clients[attempt.client].rates
            ]
            assert most_within(ours, limit.window) <= limit.count


def most_within(attempts: list[Attempt], window: float) -> int:
    """The most attempts that a provider can count in one window, wherever between sending and reply it counts them."""
    return max(
        (sum(other.ended >= one.ended and other.sent < one.ended + window for other in attempts) for one in attempts),
        default=0,
    )


def check_counts(core: Core, limits: Limits) -> None:
    """Each counter equals the attempts and offers behind it, and no target waits in two places."""
    waiting = core.waiting
    attempts = [*core._attempts.values(), *waiting.offers.values()]
    providers = Counter(attempt.provider for attempt in attempts)
    clients = Counter(attempt.client for attempt in attempts)
    current = Counter(
        each.client for each in attempts if each.epoch == each.client.breaker.epoch and not each.terms.own
    )
    governed = Counter(attempt.client for attempt in attempts if attempt.governed)
    rates = Counter(rate for attempt in attempts for rate, _ in attempt.rates)
    for provider in core.registry.providers.values():
        assert provider.in_flight == providers[provider]
        most = max(each.max_concurrency for each in limits.clients.values() if each.provider == provider.name)
        assert provider.in_flight <= most
    for client in core.registry.clients.values():
        assert client.in_flight == clients[client]
        assert client.in_flight <= client.limits.max_concurrency
        assert client.breaker.in_flight == current[client]
        assert client.ledger.in_flight == governed[client]
        for rate in client.rates + client.shared:
            assert rate.in_flight == rates[rate]
        assert not client.breaker.tried.keys() & client.breaker.own.keys()
    names = Counter((*waiting.queued, *waiting.timed, *waiting.offers, *(f.ask.name for f in core._attempts.values())))
    assert all(times == 1 for times in names.values()), names
    queues = [queue for client in core.registry.clients.values() for queue in client.queues.values()]
    assert set(waiting.queued) == {name for queue in queues for name in queue.targets}
    assert waiting.since.keys() >= waiting.queued.keys() | waiting.timed.keys()

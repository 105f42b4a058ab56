"""Attempts that were offered or granted, and the limits that they count against. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from bearerd.admission.parts import Client, Provider, Terms
from bearerd.admission.rate import Rate, Sent
from bearerd.admission.types import Ask


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt from its offer or grant to its outcome."""

    number: int
    ask: Ask
    client: Client
    provider: Provider
    terms: Terms
    governed: bool
    """Whether the ledger limits this attempt."""
    epoch: int
    """The breaker's epoch: which credentials of the client it is sent with."""
    granted: float
    kept: bool = False
    """Whether it uses the refused attempt that is reserved for changed credentials."""
    rates: list[tuple[Rate, Sent]] = field(default_factory=list)

    @property
    def recorded(self) -> bool:
        """Whether it must be in the journal, so that a crash does not forget it."""
        return self.governed or bool(self.rates)


def start(number: int, client: Client, terms: Terms, ask: Ask, now: float) -> Attempt:
    """Count a new attempt against the limits of its client and provider."""
    provider, breaker = client.provider, client.breaker
    attempt = Attempt(number, ask, client, provider, terms, client.governed(terms, now), breaker.epoch, now)
    if attempt.governed:
        attempt.kept = client.ledger.send(client.limits.refused_limit, now)
    if client.rates or client.shared:
        attempt.rates = [(rate, rate.send(now)) for rate in (*client.rates, *client.shared)]
    if terms.retry:
        provider.retry.take(now)
    provider.in_flight += 1
    client.in_flight += 1
    breaker.in_flight += not terms.own
    return attempt


def finish(attempt: Attempt) -> bool:
    """Take the attempt out of flight. Returns whether it was sent with the client's current credentials."""
    client = attempt.client
    attempt.provider.in_flight -= 1
    client.in_flight -= 1
    current = attempt.epoch == client.breaker.epoch
    client.breaker.in_flight -= current and not attempt.terms.own
    return current


def withdraw(attempt: Attempt, now: float) -> None:
    """Give everything back for an attempt that was not sent."""
    finish(attempt)
    for rate, sent in attempt.rates:
        rate.give_back(sent)
    if attempt.terms.retry:
        attempt.provider.retry.give_back(now)
    if attempt.governed:
        attempt.client.ledger.give_back(kept=attempt.kept)

"""Attempts that were offered or granted, and what they count against. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from bearerd.admission.parts import Client, Provider, Terms
from bearerd.admission.rate import Rate, Sent
from bearerd.admission.types import Ask


@dataclass(slots=True, eq=False)
class Flight:
    """An attempt from its offer or grant to its outcome."""

    number: int
    ask: Ask
    client: Client
    provider: Provider
    terms: Terms
    governed: bool
    """Whether the ledger limits it."""
    epoch: int
    """With which credentials of the client it is sent."""
    granted: float
    kept: bool = False
    """Whether it uses the refused attempt that is kept for changed credentials."""
    rates: list[tuple[Rate, Sent]] = field(default_factory=list)

    @property
    def recorded(self) -> bool:
        """Whether it is in the journal: a killed process must not forget it."""
        return self.governed or bool(self.rates)


def launch(number: int, client: Client, terms: Terms, ask: Ask, now: float) -> Flight:
    """Count one more attempt of the client."""
    provider, breaker = client.provider, client.breaker
    flight = Flight(number, ask, client, provider, terms, client.governed(terms, now), breaker.epoch, now)
    if flight.governed:
        flight.kept = client.ledger.send(client.limits.refused_limit, now)
    if client.rates or client.shared:
        flight.rates = [(rate, rate.send(now)) for rate in (*client.rates, *client.shared)]
    if terms.retry:
        provider.retry.take(now)
    provider.in_flight += 1
    client.in_flight += 1
    breaker.in_flight += not terms.own
    return flight


def land(flight: Flight) -> bool:
    """The attempt is no longer in flight. Returns whether it was sent with the client's present credentials."""
    client = flight.client
    flight.provider.in_flight -= 1
    client.in_flight -= 1
    current = flight.epoch == client.breaker.epoch
    client.breaker.in_flight -= current and not flight.terms.own
    return current


def withdraw(flight: Flight, now: float) -> None:
    """The attempt is not sent after all."""
    land(flight)
    for rate, sent in flight.rates:
        rate.give_back(sent)
    if flight.terms.retry:
        flight.provider.retry.give_back(now)
    if flight.governed:
        flight.client.ledger.give_back(kept=flight.kept)

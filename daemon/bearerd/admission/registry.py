"""The clients, providers and rate limits of the current config. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from bearerd.admission.ledger import Entry, Past
from bearerd.admission.parts import Client, Provider
from bearerd.admission.rate import Rate
from bearerd.admission.types import Limits


class Registry:
    """All clients, providers and rate limits.

    Removed clients and rate limits are kept as long as their attempts count, so that a config that leaves them out for
    a moment does not start them afresh.
    """

    def __init__(self, limits: Limits, past: Past, now: float) -> None:
        self.clients: dict[str, Client] = {}
        self.providers: dict[str, Provider] = {}
        self._removed: dict[str, Client] = {}
        self._rates: dict[str, Rate] = {}
        self._removed_rates: dict[str, Rate] = {}
        self._users: dict[Rate, list[Provider]] = {}
        self._stale = False
        self.revise(limits)
        self._restore(past, now)

    def users(self, rate: Rate) -> list[Provider]:
        """The providers of the clients that share this limit."""
        return self._users.get(rate, [])

    def find(self, name: str) -> Client | None:
        """The client of this name, also a removed one."""
        return self.clients.get(name) or self._removed.get(name)

    def revise(self, limits: Limits) -> tuple[list[Client], list[Client]]:
        """Apply the limits of a changed config.

        Returns the clients whose constraints changed, and the clients that were removed.
        """
        self._stale = True
        touched = self._revise_rates(limits)
        for provider in self.providers.values():
            provider.max_concurrency = 0
        sharing = Counter(rate for each in limits.clients.values() for rate in each.rates)
        gone = [self.clients.pop(name) for name in [*self.clients] if name not in limits.clients]
        self._removed |= {client.name: client for client in gone}
        changed: list[Client] = []
        users: dict[Rate, set[Provider]] = {}
        for name, given in limits.clients.items():
            provider = self.providers.get(given.provider) or Provider(given.provider)
            self.providers[given.provider] = provider
            provider.max_concurrency = max(provider.max_concurrency, given.max_concurrency)
            own = tuple(self._rates[rate] for rate in given.rates if sharing[rate] == 1)
            shared = tuple(self._rates[rate] for rate in given.rates if sharing[rate] > 1)
            client = self.clients.get(name)
            if client is None and (client := self._removed.pop(name, None)) is not None:
                client.breaker.forgive()  # its config or its credentials may have changed meanwhile
                client.ledger.changed = True
            client = client or Client(name, given, provider)
            self.clients[name] = client
            before = (client.provider, client.rates, client.shared)
            if before != (provider, own, shared) or not touched.isdisjoint(given.rates):
                changed.append(client)
            client.limits, client.provider, client.rates, client.shared = given, provider, own, shared
            for rate in shared:
                users.setdefault(rate, set()).add(provider)
        self._users = {rate: sorted(providers, key=lambda each: each.name) for rate, providers in users.items()}
        return changed, gone

    def prune(self, now: float) -> None:
        """Drop removed clients and rate limits whose attempts no longer count, and unused providers and queues."""
        if not self._stale:
            return
        for name, client in list(self._removed.items()):
            if not client.in_flight and next(client.ledger.ages(now), None) is None:
                del self._removed[name]
        self._removed_rates = {name: rate for name, rate in self._removed_rates.items() if rate.counts(now)}
        used = {client.provider for client in self.clients.values()}
        used_queues = {queue.provider_queue for client in self.clients.values() for queue in client.queues.values()}
        for name, provider in list(self.providers.items()):
            provider.queues = {key: queue for key, queue in provider.queues.items() if queue in used_queues}
            if provider not in used and not provider.in_flight:
                del self.providers[name]
        self._stale = bool(self._removed or self._removed_rates) or len(used) < len(self.providers)

    def entries(self, now: float) -> Iterator[tuple[float, Entry]]:
        """All entries that a restart needs, each with its age in seconds, except attempts in flight."""
        for client in (*self.clients.values(), *self._removed.values()):
            for age in client.ledger.ages(now):
                yield age, ["refused", client.name]
            for entry in client.breaker.entries(client.name, now):
                yield 0.0, entry
        for name, rate in (self._rates | self._removed_rates).items():
            for age in rate.ages(now):
                yield age, ["spent", name]

    def _revise_rates(self, limits: Limits) -> set[str]:
        """Update the rate limits. Returns the names of those that are new or changed."""
        before, known = self._rates, self._removed_rates | self._rates
        touched = {name for name, limit in limits.rates.items() if name not in before or before[name].limit != limit}
        self._rates = {name: known.get(name) or Rate(limit) for name, limit in limits.rates.items()}
        self._removed_rates = {name: rate for name, rate in known.items() if name not in limits.rates}
        for name in touched:
            self._rates[name].limit = limits.rates[name]
        return touched

    def _restore(self, past: Past, now: float) -> None:
        for name, client in self.clients.items():
            client.ledger.restore(past.refused.get(name, ()), now)
            age, fields = past.clients.get(name, (0.0, None))
            with suppress(ValueError, TypeError, OverflowError):  # malformed entries are skipped
                if fields is not None:
                    client.breaker.restore(fields, age, now)
        for (name, target), (age, fields) in past.targets.items():
            with suppress(ValueError, TypeError, OverflowError):
                if fields is not None and name in self.clients:
                    self.clients[name].breaker.restore_target(target, fields, age, now)
        for name, rate in self._rates.items():
            rate.restore(past.spent.get(name, ()), now)

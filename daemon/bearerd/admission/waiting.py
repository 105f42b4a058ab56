"""The queues of held targets, and the choice of the next one to go. Pure.

There are two levels. A client has a queue of targets for each set of constraints. A provider has a queue of client
queues for each retry budget and set of shared rate limits. A client queue is in its provider's queue only while the
client's own limits (breaker, ledger, its own rate limits) let it go. It is ordered there by its most urgent target, so
a decision costs O(log n), however many targets wait.

A free slot is granted to a waiting target in advance (an *offer*), and the target is woken. Its next request takes the
offer, so no other target can take the slot meanwhile.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

from bearerd.admission.attempt import Attempt, start, withdraw
from bearerd.admission.parts import Client, ClientQueue, Earliest, Provider, ProviderQueue, Terms, Timed
from bearerd.admission.queue import Urgency, urgency
from bearerd.admission.types import Ask, Wake

OFFER_LASTS: Final = 5.0
"""Seconds for which an offer is kept: a woken target needs only a turn to take it."""
# Seconds after which a target that did not request when it was due no longer delays the others in its queue.
_TIMER_GRACE: Final = 1.0


class Waiting:
    """The held targets, in their order."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.requester = ""
        """The target whose request is being decided. It gets an answer, so it needs no wake."""
        self.offers: dict[str, Attempt] = {}
        self.queued: dict[str, ClientQueue] = {}
        """By target: the queue in which it waits."""
        self.timed: dict[str, Timed] = {}
        """By target: its own due time, if it waits for that."""
        self.since: dict[str, float] = {}
        """By target: when it was first held."""
        self._wakes: list[Wake] = []
        self._timers: list[tuple[float, int, ClientQueue | ProviderQueue]] = []

    # -- one target ----------------------------------------------------------------------------

    def join(self, client: Client, terms: Terms, ask: Ask, now: float) -> ClientQueue:
        """Put the target into the queue for these terms. The caller must call `arrange` for its client afterwards."""
        name = ask.name
        client_queue = client.queue(terms)
        if self.queued.get(name) is not client_queue:
            self.leave(name)
            self.queued[name] = client_queue
        tried = client.breaker.tried.get(name)
        client_queue.targets.push(name, ask, now, tried.refusals if tried else 0)
        self.since.setdefault(name, now)
        return client_queue

    def wait_for(self, name: str, timed: Timed, now: float) -> None:
        """Let the target wait for its own due time."""
        self.leave(name)
        self.timed[name] = timed
        self.since.setdefault(name, now)

    def leave(self, name: str) -> None:
        """Let the target wait no longer. If it was queued, the caller must call `arrange` for its client afterwards."""
        self.timed.pop(name, None)
        client_queue = self.queued.pop(name, None)
        if client_queue is not None:
            client_queue.targets.discard(name)

    def drop(self, name: str, now: float) -> None:
        """Remove a target that no longer asks, with its place in a queue and its offer."""
        offer = self.offers.get(name)
        if offer is not None:
            self.withdraw(offer, now)
        self.leave(name)
        self.since.pop(name, None)

    def client_of(self, name: str) -> str | None:
        """The client of a target that waits."""
        client_queue, timed = self.queued.get(name), self.timed.get(name)
        return client_queue.client.name if client_queue else timed.client if timed else None

    def wake(self, name: str, at: float) -> None:
        """Have the target request at a moment."""
        if name != self.requester:
            self._wakes.append(Wake(name, at))

    def take_wakes(self) -> tuple[Wake, ...]:
        """The targets that have to request, now or later; those for now in the order of urgency."""
        wakes, self._wakes = tuple(self._wakes), []
        return wakes

    def withdraw(self, attempt: Attempt, now: float) -> None:
        """Take an offer back. The caller must call `arrange` for its client afterwards."""
        del self.offers[attempt.ask.name]
        withdraw(attempt, now)

    def put_back(self, attempt: Attempt, now: float) -> None:
        """Take an offer back. Its target was woken and requests again; until then it waits in its former place."""
        self.withdraw(attempt, now)
        self.join(attempt.client, attempt.client.terms(attempt.ask, now), attempt.ask, now)

    # -- the order -----------------------------------------------------------------------------

    def arrange(self, client: Client, now: float) -> None:
        """Move the client's queues after a change, and offer slots to the targets that may go."""
        for client_queue in list(client.queues.values()):
            self._place(client_queue, now)
        self.dispatch(client.provider, now)

    def dispatch(self, provider: Provider, now: float) -> None:
        """Offer free slots, most urgent first."""
        while provider.in_flight < provider.max_concurrency:
            best: tuple[Urgency, ClientQueue] | None = None
            for provider_queue in provider.queues.values():
                client_queue = self._first(provider_queue, now)
                if client_queue is not None:
                    candidate = urgency(provider_queue.ready.ask(client_queue), now)
                    if best is None or candidate < best[0]:
                        best = (candidate, client_queue)
            if best is None:
                return
            self._offer(best[1], now)

    def earliest(self, client_queue: ClientQueue, now: float) -> Earliest:
        """When the queue's next target may go, as far as that is known, and what holds it."""
        if client_queue not in client_queue.provider_queue.ready:
            return client_queue.earliest
        until, reason = client_queue.provider_queue.earliest(now)
        return (until, reason) if until > now else (inf, "concurrency")

    def moment(self, name: str, client_queue: ClientQueue, now: float) -> float:
        """When this target has to request without being woken; `inf` if another target or an event wakes it."""
        armed = (client_queue.armed, client_queue.provider_queue.armed)
        return min((each[1] for each in armed if each is not None and each[0] == name and each[1] > now), default=inf)

    def sweep(self, now: float) -> None:
        """Take back offers that were not taken, and pass over targets that did not request when they were due."""
        for attempt in [each for each in self.offers.values() if each.granted + OFFER_LASTS <= now]:
            self.withdraw(attempt, now)
            self.arrange(attempt.client, now)
        while self._timers and self._timers[0][0] + _TIMER_GRACE <= now:
            _, _, holder = heappop(self._timers)
            if isinstance(holder, ProviderQueue):
                self.dispatch(holder.provider, now)
            else:
                self.arrange(holder.client, now)

    def requeue(self, client: Client, now: float) -> None:
        """Queue the client's targets again under its new constraints. The caller must call `arrange` afterwards."""
        old, client.queues = list(client.queues.values()), {}
        for client_queue in old:
            client_queue.provider_queue.ready.discard(client_queue)
            for name in list(client_queue.targets):
                ask = client_queue.targets.ask(name)
                self.join(client, client.terms(ask, now), ask, now)

    def _place(self, client_queue: ClientQueue, now: float) -> None:
        """Put the queue into its provider's queue if its client lets it go, else take it out."""
        name = client_queue.targets.top(now)
        if name is None:
            client_queue.provider_queue.ready.discard(client_queue)
            client_queue.client.queues.pop(client_queue.terms, None)
            return
        client_queue.earliest = client_queue.client.earliest(client_queue.terms, name, now)
        if client_queue.earliest[0] <= now:
            client_queue.provider_queue.ready.push(client_queue, client_queue.targets.ask(name), now)
            changes_at = client_queue.targets.changes_at(now)
            if changes_at != client_queue.changes_at:
                client_queue.changes_at = changes_at
                if changes_at < inf:
                    heappush(client_queue.provider_queue.changes, (changes_at, next(self.numbers), client_queue))
        else:
            client_queue.provider_queue.ready.discard(client_queue)
            self._arm(client_queue, name, client_queue.earliest[0], now)

    def _first(self, provider_queue: ProviderQueue, now: float) -> ClientQueue | None:
        """The most urgent client queue of a provider's queue, if it may go now."""
        while provider_queue.changes and provider_queue.changes[0][0] <= now:
            at, _, changed = heappop(provider_queue.changes)
            if changed in provider_queue.ready and changed.changes_at == at:
                self._place(changed, now)
        while (client_queue := provider_queue.ready.top(now)) is not None:
            self._place(client_queue, now)  # time has passed since it was put there
            if client_queue not in provider_queue.ready:
                continue
            opens, _ = provider_queue.earliest(now)
            if opens <= now:
                return client_queue
            name = client_queue.targets.top(now)
            if name is not None:
                self._arm(provider_queue, name, opens, now)
            return None
        return None

    def _offer(self, client_queue: ClientQueue, now: float) -> None:
        name = client_queue.targets.top(now)
        if name is None:
            return
        ask = client_queue.targets.ask(name)
        self.leave(name)
        self.offers[name] = start(next(self.numbers), client_queue.client, client_queue.terms, ask, now)
        self.wake(name, now)
        for each in list(client_queue.client.queues.values()):
            self._place(each, now)

    def _arm(self, holder: ClientQueue | ProviderQueue, name: str, at: float, now: float) -> None:
        """Have the most urgent target of a queue request at the queue's earliest moment."""
        if at == inf or (holder.armed is not None and holder.armed[0] == name and now < holder.armed[1] <= at):
            return
        holder.armed = (name, at)
        heappush(self._timers, (at, next(self.numbers), holder))
        self.wake(name, at)

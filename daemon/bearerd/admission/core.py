"""The decisions of admission: breaker, ledger, retry budget, rate limits, slots and order together. Pure.

Invariants, after every call:

- a target waits in one place at most, and never both waits and has an offer;
- no waiting target could be granted at this moment;
- a waiting target that only time can free requests at that moment, or stands behind one that does;
- each `in_flight` is the number of flights and offers that count against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from typing import Final

from bearerd.admission.flights import Flight, land, launch
from bearerd.admission.ledger import Entry, Past
from bearerd.admission.parts import Client, Opening, Terms, Timed
from bearerd.admission.rate import late_margin
from bearerd.admission.registry import Registry
from bearerd.admission.types import Ask, Granted, Held, Limits, Refusal, Settled, Ticket, Wake
from bearerd.admission.waiting import Waiting
from bearerd.grant.outcome import Failure, Issued, Outcome, Refused, Transient

FALLBACK: Final = 600.0
"""Seconds after which a held target requests again though nothing woke it: only a lost wake makes it matter."""


class Core:
    """Not safe for threads. `now` never goes back: an earlier one counts as the latest known."""

    def __init__(self, limits: Limits, past: Past | None = None, now: float = 0.0) -> None:
        self.registry = Registry(limits, past or Past(), now)
        self.waiting = Waiting()
        self._now = now
        self._flights: dict[int, Flight] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._entries: list[Entry] = []
        self._strangers: dict[str, str] = {}
        """By target: clients that asked and are not known yet; a new config comes here last."""

    # -- requests ------------------------------------------------------------------------------

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Whether the target may send one attempt now. Others may have to be woken (`take_wakes`)."""
        now = self._at(now)
        waiting, name = self.waiting, ask.name
        client = self.registry.clients.get(ask.client)
        if client is None:
            self._strangers[name] = ask.client
            return Held(inf, "unknown_client", now + FALLBACK)
        waiting.requester = name
        try:
            offer = waiting.offers.get(name)
            if offer is not None:
                if offer.governed or client.breaker.closed(now):
                    return self._claim(offer, ask, now)
                waiting.withdraw(offer, now)
            timed = self._own_moment(client, ask, now)
            if timed is not None:
                waiting.wait_for(name, timed, now)
                waiting.arrange(client, now)
                return Held(timed.until, timed.reason, timed.until)
            terms = client.terms(ask, now)
            alone = not client.groups and not client.provider.waiting
            if alone and self._opening(client, terms, name, now)[0] <= now:
                waiting.leave(name)
                return self._claim(launch(next(waiting.numbers), client, terms, ask, now), ask, now)
            group = waiting.join(client, terms, ask, now)
            waiting.arrange(client, now)
            offer = waiting.offers.get(name)
            if offer is not None:
                return self._claim(offer, ask, now)
            until, reason = waiting.opening(group, now)
            return Held(until, reason, min(waiting.moment(name, group, now), now + FALLBACK))
        finally:
            waiting.requester = ""

    def preview(self, ask: Ask, now: float) -> Held | None:
        """What `request` would answer; None means granted."""
        now = max(self._now, now)
        client = self.registry.clients.get(ask.client)
        if client is None:
            return Held(inf, "unknown_client", now + FALLBACK)
        if ask.name in self.waiting.offers:
            return None
        timed = self._own_moment(client, ask, now)
        if timed is not None:
            return Held(timed.until, timed.reason, timed.until)
        until, reason = self._opening(client, client.terms(ask, now), ask.name, now)
        return Held(until, reason, min(until, now + FALLBACK)) if until > now else None

    def take_wakes(self) -> tuple[Wake, ...]:
        """Who has to request, and when; those for now most urgent first."""
        return self.waiting.take_wakes()

    def _own_moment(self, client: Client, ask: Ask, now: float) -> Timed | None:
        """A moment of the target's own that has not come: its pace, or a late renewal under a scarce limit."""
        rates = client.rates + client.shared
        for rate in rates:
            rate.expect(ask.name, ask.lifetime, ask.period)
        if ask.last_attempt:
            return None
        own = client.breaker.own.get(ask.name)
        if own is not None and own.next_at > now:
            return Timed(client.name, "refused", own.next_at)
        if ask.expires is None or ask.requested or not any(rate.late for rate in rates):
            return None
        late = ask.expires - late_margin(ask.name)
        return Timed(client.name, "rate_limit", late) if late > now else None

    def _opening(self, client: Client, terms: Terms, name: str, now: float) -> Opening:
        """When an ask may go, if nobody else waits."""
        until, reason = client.opens(terms, name, now)
        lane = client.provider.lane(client.shared, terms.kind, retry=terms.retry)
        at, why = lane.opens(now)
        if at > until:
            until, reason = at, why
        if until <= now and client.provider.in_flight >= client.provider.max_concurrency:
            return inf, "concurrency"
        return until, reason

    def _claim(self, flight: Flight, ask: Ask, now: float) -> Granted:
        self.waiting.offers.pop(ask.name, None)
        self.waiting.since.pop(ask.name, None)
        flight.granted = now
        ticket = Ticket(flight.number, ask, now, now + flight.client.limits.deadline)
        self._flights[flight.number] = flight
        heappush(self._deadlines, (ticket.deadline, ticket.number, ticket))
        if flight.recorded:
            self._entries.append(_sent(flight))
        return Granted(ticket)

    # -- outcomes ------------------------------------------------------------------------------

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """What the attempt came to; None: nobody knows. A ticket that was settled before changes nothing."""
        now = self._at(now)
        flight = self._flights.pop(ticket.number, None)
        if flight is None:
            return Settled()
        client = flight.client
        current = land(flight)
        reached = not isinstance(outcome, Failure) or outcome.reached_the_endpoint
        for rate, sent in flight.rates:
            if reached:
                rate.replied(now)
            else:
                rate.give_back(sent)
            if isinstance(outcome, Issued) and ticket.ask.expires is None:
                # What renewals need has to be known before the first of them is due.
                rate.expect(ticket.ask.name, outcome.token.lifetime, outcome.token.lifetime)
        self._settle_retry(flight, outcome, reached=reached, now=now)
        counted = self._judge(flight, outcome, now, reached=reached, current=current)
        if counted:
            client.ledger.refused(now, governed=flight.governed)
        elif flight.governed:
            client.ledger.give_back(kept=flight.kept and not reached)
        if flight.recorded:
            self._entries.append(["end", flight.number, counted, reached])
        if counted and not flight.governed:
            self._entries.append(["refused", client.name])
        self._note(client, now)
        self.waiting.arrange(client, now)
        for provider in {flight.provider, *(user for rate, _ in flight.rates for user in self.registry.users(rate))}:
            self.waiting.dispatch(provider, now)
        return Settled(self._next_attempt(client, ticket.ask.name))

    def _settle_retry(self, flight: Flight, outcome: Outcome | None, *, reached: bool, now: float) -> None:
        retry = flight.provider.retry
        if outcome is None or isinstance(outcome, Transient):
            if flight.terms.retry:
                retry.failed(now)
        elif reached:
            retry.answered()
        elif flight.terms.retry:
            retry.give_back(now)

    def _judge(self, flight: Flight, outcome: Outcome | None, now: float, *, reached: bool, current: bool) -> bool:
        """What the outcome says about the client; whether the ledger counts the attempt."""
        client, breaker, name = flight.client, flight.client.breaker, flight.ask.name
        if not current:
            return isinstance(outcome, Refused) and flight.governed
        if isinstance(outcome, Issued):
            refused = [other for other in breaker.tried if other != name]
            breaker.got_token(name, flight.granted, now)
            client.ledger.changed = False  # the changed credentials work
            for other in refused:
                if other in self.waiting.groups:  # from now on it waits for its own pace
                    timed = Timed(client.name, "refused", breaker.own[other].next_at)
                    self.waiting.wait_for(other, timed, now)
                    self.waiting.wake(other, timed.until)
            return False
        if not isinstance(outcome, Refused):
            return reached and breaker.unclear(name, now, governed=flight.governed)
        was_open = breaker.refusal is not None
        if outcome.whole_client:
            breaker.refused_client(name, outcome, flight.granted, now, governed=flight.governed)
        else:
            breaker.refused_target(name, outcome, now)
        if breaker.refusal is not None and not was_open:
            return True  # an offer of the time before is not good any more: its target finds out as it comes
        # Not governed: in flight when the first refusal came, which is not counted, or the first of this target.
        return flight.governed or (name in breaker.own and self._has_room(client, now))

    def _has_room(self, client: Client, now: float) -> bool:
        limit = client.limits.refused_limit
        return client.ledger.count(limit.window, now) < limit.count - 1

    def _next_attempt(self, client: Client, name: str) -> float:
        own = client.breaker.own.get(name)
        if own is not None:
            return own.next_at
        return client.breaker.probe_at if client.breaker.refusal is not None else 0.0

    # -- what changes from outside -------------------------------------------------------------

    def revise(self, limits: Limits, now: float) -> None:
        """A changed config: waits under old limits are void."""
        now = self._at(now)
        waiting = self.waiting
        for offer in list(waiting.offers.values()):
            waiting.put_back(offer, now)
        changed, gone = self.registry.revise(limits)
        for client in gone:
            for name in [name for group in client.groups.values() for name in group.queue]:
                waiting.leave(name)
                waiting.since.pop(name, None)
            waiting.arrange(client, now)
        for client in changed:
            waiting.regroup(client, now)
        others = {client.name for client in changed}
        for name, timed in list(waiting.timed.items()):
            if timed.reason == "rate_limit" and timed.client in others:
                waiting.wake(name, now)
        for client in self.registry.clients.values():
            if client.groups:
                waiting.arrange(client, now)
        for name in [name for name, stranger in self._strangers.items() if stranger in self.registry.clients]:
            del self._strangers[name]
            waiting.wake(name, now)

    def forgive(self, client_name: str, now: float) -> None:
        """The client's credentials changed: its breaker half-opens at once."""
        now = self._at(now)
        client = self.registry.clients.get(client_name)
        if client is None:
            return
        waiting, breaker = self.waiting, client.breaker
        for offer in [offer for offer in waiting.offers.values() if offer.client is client]:
            waiting.put_back(offer, now)
        own = [name for name in breaker.own if name in waiting.timed]
        breaker.forgive()
        client.ledger.changed = True
        waiting.regroup(client, now)
        self._note(client, now)
        waiting.arrange(client, now)
        for name in own:
            waiting.wake(name, now)

    def worked(self, client_name: str) -> None:
        """The client got a token with its credentials before."""
        client = self.registry.clients.get(client_name)
        if client is not None:
            client.breaker.worked = True

    def forget(self, name: str, client_name: str, now: float) -> None:
        """The target is no longer wanted."""
        now = self._at(now)
        offer = self.waiting.offers.get(name)
        if offer is not None:
            self.waiting.withdraw(offer, now)
        self._strangers.pop(name, None)
        self.waiting.leave(name)
        self.waiting.since.pop(name, None)
        client = self.registry.clients.get(client_name)
        if client is not None:
            for rate in client.rates + client.shared:
                rate.forget(name)
            client.breaker.forget(name)
            self._note(client, now)
            self.waiting.arrange(client, now)

    def sweep(self, now: float) -> None:
        """Settle tickets past their deadline, and go on where a target that was woken did not request."""
        now = self._at(now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self.settle(heappop(self._deadlines)[2], None, now)
        self.waiting.sweep(now)
        self.registry.prune(now)

    def refusal(self, name: str, client_name: str) -> Refusal | None:
        """How the target is refused at present, on its own or with its client."""
        client = self.registry.clients.get(client_name)
        if client is None:
            return None
        own, breaker = client.breaker.own.get(name), client.breaker
        if own is not None:
            return Refusal(own.outcome, own.refusals, own.next_at, own=True)
        if breaker.refusal is None:
            return None
        refusals = breaker.refusals
        if name not in breaker.tried and len(breaker.tried) == 1:
            refusals = min(refusals, 1)  # it may be the other target's own: of this one nobody knows
        return Refusal(breaker.refusal, refusals, breaker.probe_at, own=False)

    # -- over restarts -------------------------------------------------------------------------

    @property
    def noted(self) -> bool:
        """Whether something has to go into the journal."""
        return bool(self._entries)

    def take_entries(self) -> list[Entry]:
        """What has to go into the journal, in order."""
        entries, self._entries = self._entries, []
        return entries

    def dump(self, now: float) -> Iterator[tuple[float, Entry]]:
        """All that has to be known after a restart, each with its age in seconds."""
        now = max(self._now, now)
        yield from self.registry.entries(now)
        for flight in self._flights.values():
            if flight.recorded:
                yield now - flight.granted, _sent(flight)

    def _note(self, client: Client, now: float) -> None:
        self._entries += client.breaker.take_entries(client.name, now)

    def _at(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now


def _sent(flight: Flight) -> Entry:
    return ["sent", flight.number, flight.client.name, flight.governed, list(flight.client.limits.budgets)]

"""The decisions of admission: breaker, ledger, retry budget, rate limits, slots and order together. Pure.

Invariants, after every call:

- a target waits in at most one queue, and never waits while it has an offer;
- no waiting target could be granted now;
- if only time can free a waiting target, it requests at that time, or a target before it in the queue does;
- each `in_flight` is the number of attempts and offers that count against that limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from typing import Final

from bearerd.admission.attempt import Attempt, finish, start
from bearerd.admission.ledger import Entry, Past
from bearerd.admission.parts import Client, Earliest, Terms, Timed
from bearerd.admission.rate import late_margin
from bearerd.admission.registry import Registry
from bearerd.admission.types import Ask, Granted, Held, Limits, Refusal, Settled, Ticket, Wake
from bearerd.admission.waiting import Waiting
from bearerd.grant.outcome import Failure, Issued, Outcome, Refused, Transient

FALLBACK: Final = 600.0
"""Seconds after which a held target requests again without a wake. It matters only if a wake was lost."""


class Core:
    """Not thread-safe. Time never goes back: an earlier `now` counts as the latest one seen."""

    def __init__(self, limits: Limits, past: Past | None, now: float) -> None:
        self.registry = Registry(limits, past or Past(), now)
        self.waiting = Waiting()
        self._now = now
        self._attempts: dict[int, Attempt] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._entries: list[Entry] = []
        self._unknown: dict[str, str] = {}
        """By target: the clients of requests that came before `revise` made the client known."""

    # -- requests ------------------------------------------------------------------------------

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Decide whether the target may send one attempt now. Call `take_wakes` afterwards."""
        now = self._at(now)
        waiting, name = self.waiting, ask.name
        client = self.registry.clients.get(ask.client)
        if client is None:
            self._unknown[name] = ask.client
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
            alone = not client.queues and not client.provider.waiting
            if alone and self._earliest(client, terms, name, now)[0] <= now:
                waiting.leave(name)
                return self._claim(start(next(waiting.numbers), client, terms, ask, now), ask, now)
            client_queue = waiting.join(client, terms, ask, now)
            waiting.arrange(client, now)
            offer = waiting.offers.get(name)
            if offer is not None:
                return self._claim(offer, ask, now)
            until, reason = waiting.earliest(client_queue, now)
            return Held(until, reason, min(waiting.moment(name, client_queue, now), now + FALLBACK))
        finally:
            waiting.requester = ""

    def preview(self, ask: Ask, now: float) -> Held | None:
        """The answer that `request` would give, without changing anything. None means granted."""
        now = max(self._now, now)
        client = self.registry.clients.get(ask.client)
        if client is None:
            return Held(inf, "unknown_client", now + FALLBACK)
        if ask.name in self.waiting.offers:
            return None
        timed = self._own_moment(client, ask, now)
        if timed is not None:
            return Held(timed.until, timed.reason, timed.until)
        until, reason = self._earliest(client, client.terms(ask, now), ask.name, now)
        return Held(until, reason, min(until, now + FALLBACK)) if until > now else None

    def take_wakes(self) -> tuple[Wake, ...]:
        """The targets that have to request, now or later; those for now in the order of urgency."""
        return self.waiting.take_wakes()

    def _own_moment(self, client: Client, ask: Ask, now: float) -> Timed | None:
        """The target's own due time, if it is ahead: its backoff, or a late renewal under a scarce rate limit."""
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

    def _earliest(self, client: Client, terms: Terms, name: str, now: float) -> Earliest:
        """When this target may go if no other target waits."""
        until, reason = client.earliest(terms, name, now)
        provider_queue = client.provider.queue(client.shared, terms.kind, retry=terms.retry)
        at, why = provider_queue.earliest(now)
        if at > until:
            until, reason = at, why
        if until <= now and client.provider.in_flight >= client.provider.max_concurrency:
            return inf, "concurrency"
        return until, reason

    def _claim(self, attempt: Attempt, ask: Ask, now: float) -> Granted:
        self.waiting.offers.pop(ask.name, None)
        self.waiting.since.pop(ask.name, None)
        attempt.granted = now
        ticket = Ticket(attempt.number, ask, now, now + attempt.client.limits.deadline)
        self._attempts[attempt.number] = attempt
        # Those of a burst would otherwise pile up for as long as a request may take.
        while self._deadlines and self._deadlines[0][1] not in self._attempts:
            heappop(self._deadlines)
        heappush(self._deadlines, (ticket.deadline, ticket.number, ticket))
        if attempt.recorded:
            self._entries.append(_sent(attempt))
        return Granted(ticket)

    # -- outcomes ------------------------------------------------------------------------------

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """Report the outcome of an attempt; None if it is unknown. A ticket that is already settled changes nothing."""
        now = self._at(now)
        attempt = self._attempts.pop(ticket.number, None)
        if attempt is None:
            return Settled()
        client = attempt.client
        current = finish(attempt)
        reached = not isinstance(outcome, Failure) or outcome.reached_the_endpoint
        for rate, sent in attempt.rates:
            if reached:
                rate.replied(now)
            else:
                rate.give_back(sent)
            if isinstance(outcome, Issued) and ticket.ask.expires is None:
                # The demand of renewals must be known before the first of them is due.
                rate.expect(ticket.ask.name, outcome.token.lifetime, outcome.token.lifetime)
        self._settle_retry(attempt, outcome, reached=reached, now=now)
        counted = self._judge(attempt, outcome, now, reached=reached, current=current)
        if counted:
            client.ledger.refused(now, governed=attempt.governed)
        elif attempt.governed:
            client.ledger.give_back(kept=attempt.kept and not reached)
        if attempt.recorded:
            self._entries.append(["end", attempt.number, counted, reached])
        if counted and not attempt.governed:
            self._entries.append(["refused", client.name])
        self._note(client, now)
        self.waiting.arrange(client, now)
        for provider in {attempt.provider, *(user for rate, _ in attempt.rates for user in self.registry.users(rate))}:
            self.waiting.dispatch(provider, now)
        return self._settled(client, ticket.ask.name)

    def _settle_retry(self, attempt: Attempt, outcome: Outcome | None, *, reached: bool, now: float) -> None:
        retry = attempt.provider.retry
        if outcome is None or isinstance(outcome, Transient):
            if attempt.terms.retry:
                retry.failed(now)
        elif reached:
            retry.answered()
        elif attempt.terms.retry:
            retry.give_back(now)

    def _judge(self, attempt: Attempt, outcome: Outcome | None, now: float, *, reached: bool, current: bool) -> bool:
        """Update the client's breaker. Returns whether the ledger counts the attempt as refused."""
        client, breaker, name = attempt.client, attempt.client.breaker, attempt.ask.name
        if not current:
            return isinstance(outcome, Refused) and attempt.governed
        if isinstance(outcome, Issued):
            self._got_token(client, name, attempt.granted, now)
            client.ledger.changed = False  # the changed credentials work
            return False
        if not isinstance(outcome, Refused):
            return reached and breaker.unclear(name, now, governed=attempt.governed)
        was_open = breaker.refusal is not None
        if outcome.whole_client:
            breaker.refused_client(name, outcome, attempt.granted, now, governed=attempt.governed)
        else:
            breaker.refused_target(name, outcome, now)
        if breaker.refusal is not None and not was_open:
            return True  # offers made before are void: `request` takes them back
        # An ungoverned attempt was in flight when the first refusal arrived, and is not counted, or it is the first
        # refusal of a target on its own.
        return attempt.governed or (name in breaker.own and self._has_room(client, now))

    def _got_token(self, client: Client, name: str, sent: float, now: float) -> None:
        breaker = client.breaker
        refused = [other for other in breaker.tried if other != name]
        breaker.got_token(name, sent, now)
        for other in refused:
            if other in self.waiting.queued:  # from now on it waits for its own backoff
                timed = Timed(client.name, "refused", breaker.own[other].next_at)
                self.waiting.wait_for(other, timed, now)
                self.waiting.wake(other, timed.until)

    def _has_room(self, client: Client, now: float) -> bool:
        limit = client.limits.refused_limit
        return client.ledger.count(limit.window, now) < limit.count - 1

    def _settled(self, client: Client, name: str) -> Settled:
        own, breaker = client.breaker.own.get(name), client.breaker
        if own is not None:
            return Settled(own.next_at, own.next_at)
        if breaker.refusal is None:
            return Settled()
        others = any(other not in breaker.tried for queue in client.queues.values() for other in queue.targets)
        return Settled(breaker.probe_at, breaker.next_for_others() if others else breaker.probe_at)

    # -- what changes from outside -------------------------------------------------------------

    def revise(self, limits: Limits, now: float) -> None:
        """Apply the limits of a changed config."""
        now = self._at(now)
        waiting = self.waiting
        for offer in list(waiting.offers.values()):
            waiting.put_back(offer, now)
        changed, gone = self.registry.revise(limits)
        for client in gone:
            for name in [name for client_queue in client.queues.values() for name in client_queue.targets]:
                waiting.drop(name, now)
            waiting.arrange(client, now)
        for client in changed:
            waiting.requeue(client, now)
        others = {client.name for client in changed}
        for name, timed in list(waiting.timed.items()):
            if timed.reason == "rate_limit" and timed.client in others:
                waiting.wake(name, now)
        for client in self.registry.clients.values():
            if client.queues:
                waiting.arrange(client, now)
        for name in [name for name, client_name in self._unknown.items() if client_name in self.registry.clients]:
            del self._unknown[name]
            waiting.wake(name, now)

    def forgive(self, client_name: str, now: float) -> None:
        """Half-open the client's breaker, because its credentials changed."""
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
        waiting.requeue(client, now)
        self._note(client, now)
        waiting.arrange(client, now)
        for name in own:
            waiting.wake(name, now)

    def worked(self, client_name: str) -> None:
        """Note that the client's credentials worked before."""
        client = self.registry.clients.get(client_name)
        if client is not None:
            client.breaker.worked = True

    def fleet_refused(
        self, name: str, client_name: str, outcome: Refused, refusals: int, wait: float, now: float
    ) -> None:
        """Note that another daemon of the fleet was refused. The fleet makes its next attempt in `wait` seconds."""
        now = self._at(now)
        client = self.registry.clients.get(client_name)
        if client is not None:
            client.breaker.fleet_refused(name, outcome, refusals, wait, now)
            self._note(client, now)
            self.waiting.arrange(client, now)

    def fleet_issued(self, name: str, client_name: str, now: float) -> None:
        """Note that another daemon of the fleet has just obtained a token: the credentials work."""
        now = self._at(now)
        client = self.registry.clients.get(client_name)
        if client is not None:
            self._got_token(client, name, now, now)
            self._note(client, now)
            self.waiting.arrange(client, now)

    def cancel(self, name: str, client_name: str, now: float) -> None:
        """Remove a target from its queue: it has a token from elsewhere, and would not use an offer."""
        now = self._at(now)
        self.waiting.drop(name, now)
        client = self.registry.find(client_name)
        if client is not None:
            self.waiting.arrange(client, now)

    def forget(self, name: str, client_name: str, now: float) -> None:
        """Remove a target that is no longer wanted."""
        now = self._at(now)
        self._unknown.pop(name, None)
        self.waiting.drop(name, now)
        client = self.registry.find(client_name)
        if client is not None:
            for rate in client.rates + client.shared:
                rate.forget(name)
            client.breaker.forget(name)
            self._note(client, now)
            self.waiting.arrange(client, now)

    def sweep(self, now: float) -> None:
        """Settle tickets past their deadline, and pass over targets that were woken and did not request."""
        now = self._at(now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self.settle(heappop(self._deadlines)[2], None, now)
        self.waiting.sweep(now)
        self.registry.prune(now)

    def refusal(self, name: str, client_name: str) -> Refusal | None:
        """The refusal that holds the target, its own or its client's; None if it is not refused."""
        client = self.registry.clients.get(client_name)
        if client is None:
            return None
        own, breaker = client.breaker.own.get(name), client.breaker
        if own is not None:
            return Refusal(own.outcome, own.refusals, own.next_at, own=True, request=own.outcome.request)
        if breaker.refusal is None:
            return None
        tried = breaker.tried.get(name)
        request = tried.outcome.request if tried is not None else ""
        refusals = breaker.refusals
        if tried is None and len(breaker.tried) == 1:
            refusals = min(refusals, 1)  # the refusal may be the other target's own, and this one was not tried
        return Refusal(breaker.refusal, refusals, breaker.probe_at, own=False, request=request)

    # -- over restarts -------------------------------------------------------------------------

    @property
    def noted(self) -> bool:
        """Whether there are entries for the journal."""
        return bool(self._entries)

    def take_entries(self) -> list[Entry]:
        """The entries for the journal since the last call, in order."""
        entries, self._entries = self._entries, []
        return entries

    def dump(self, now: float) -> Iterator[tuple[float, Entry]]:
        """All entries that a restart needs, each with its age in seconds."""
        now = max(self._now, now)
        yield from self.registry.entries(now)
        for attempt in self._attempts.values():
            if attempt.recorded:
                yield now - attempt.granted, _sent(attempt)

    def _note(self, client: Client, now: float) -> None:
        self._entries += client.breaker.take_entries(client.name, now)

    def _at(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now


def _sent(attempt: Attempt) -> Entry:
    return ["sent", attempt.number, attempt.client.name, attempt.governed, list(attempt.client.limits.rates)]

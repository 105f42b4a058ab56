"""Who waits for what, and who goes next. Pure.

A client's waiting targets stand in groups, one for each set of constraints. What holds the client (breaker, ledger,
its own rate limits) keeps its groups out of the provider's lanes. What holds a lane (retry budget, shared rate
limits) is the same for all groups in it. A group stands in its lane with its most urgent target, so a decision
costs O(log n) however many wait.

A slot that is free for a waiting target is granted to it in advance (an *offer*) and the target is woken; its next
request takes the offer. Nobody can get in between.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

from bearerd.admission.flights import Flight, launch, withdraw
from bearerd.admission.parts import Client, Group, Lane, Opening, Provider, Terms, Timed
from bearerd.admission.queue import Urgency, urgency
from bearerd.admission.types import Ask, Wake

OFFER_LASTS: Final = 5.0
"""Seconds in which a woken target takes its offer: it only has to be given a turn."""
# Whoever was to request at a moment and did not within this has lost its turn.
_ALARM_GRACE: Final = 1.0


class Waiting:
    """The held targets, in their order."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.requester = ""
        """Who requests just now: it needs no wake, it is told."""
        self.offers: dict[str, Flight] = {}
        self.groups: dict[str, Group] = {}
        """By target: where it waits for others."""
        self.timed: dict[str, Timed] = {}
        """By target: the moment of its own for which it waits."""
        self.since: dict[str, float] = {}
        """By target: since when it has been held."""
        self._wakes: list[Wake] = []
        self._alarms: list[tuple[float, int, Group | Lane]] = []

    # -- one target ----------------------------------------------------------------------------

    def join(self, client: Client, terms: Terms, ask: Ask, now: float) -> Group:
        """The target waits under these terms. Its client has to be arranged then."""
        name = ask.name
        group = client.group(terms)
        if self.groups.get(name) is not group:
            self.leave(name)
            self.groups[name] = group
        tried = client.breaker.tried.get(name)
        group.queue.push(name, ask, now, tried.refusals if tried else 0)
        self.since.setdefault(name, now)
        return group

    def wait_for(self, name: str, timed: Timed, now: float) -> None:
        """The target waits for a moment of its own."""
        self.leave(name)
        self.timed[name] = timed
        self.since.setdefault(name, now)

    def leave(self, name: str) -> None:
        """The target waits for nothing. If it stood in a group, its client has to be arranged then."""
        self.timed.pop(name, None)
        group = self.groups.pop(name, None)
        if group is not None:
            group.queue.discard(name)

    def client_of(self, name: str) -> str | None:
        """The client of a target that waits."""
        group, timed = self.groups.get(name), self.timed.get(name)
        return group.client.name if group else timed.client if timed else None

    def wake(self, name: str, at: float) -> None:
        """Have the target request at a moment."""
        if name != self.requester:
            self._wakes.append(Wake(name, at))

    def take_wakes(self) -> tuple[Wake, ...]:
        """Who has to request, in order; for moments to come, and for now, most urgent first."""
        wakes, self._wakes = tuple(self._wakes), []
        return wakes

    def withdraw(self, flight: Flight, now: float) -> None:
        """Take an offer back. Its client has to be arranged then."""
        del self.offers[flight.ask.name]
        withdraw(flight, now)

    def put_back(self, flight: Flight, now: float) -> None:
        """Take an offer back; its target, which was woken and requests again, stands where it stood before."""
        self.withdraw(flight, now)
        self.join(flight.client, flight.client.terms(flight.ask, now), flight.ask, now)

    # -- the order -----------------------------------------------------------------------------

    def arrange(self, client: Client, now: float) -> None:
        """Something of this client changed: put its groups where they belong, and let go whoever may."""
        for group in list(client.groups.values()):
            self._place(group, now)
        self.dispatch(client.provider, now)

    def dispatch(self, provider: Provider, now: float) -> None:
        """Offer free slots, most urgent first."""
        while provider.in_flight < provider.max_concurrency:
            best: tuple[Urgency, Group] | None = None
            for lane in provider.lanes.values():
                group = self._first(lane, now)
                if group is not None:
                    candidate = urgency(lane.queue.ask(group), now)
                    if best is None or candidate < best[0]:
                        best = (candidate, group)
            if best is None:
                return
            self._offer(best[1], now)

    def opening(self, group: Group, now: float) -> Opening:
        """When the group's next target may go, as far as that is known, and what holds it."""
        if group not in group.lane.queue:
            return group.opening
        until, reason = group.lane.opens(now)
        return (until, reason) if until > now else (inf, "concurrency")

    def moment(self, name: str, group: Group, now: float) -> float:
        """When this target has to request by itself; `inf` if another does, or an event wakes it."""
        armed = (group.armed, group.lane.armed)
        return min((each[1] for each in armed if each is not None and each[0] == name and each[1] > now), default=inf)

    def sweep(self, now: float) -> None:
        """Take back offers that were not taken, and go on where somebody did not request at their moment."""
        for flight in [each for each in self.offers.values() if each.granted + OFFER_LASTS <= now]:
            self.withdraw(flight, now)
            self.arrange(flight.client, now)
        while self._alarms and self._alarms[0][0] + _ALARM_GRACE <= now:
            _, _, holder = heappop(self._alarms)
            if isinstance(holder, Lane):
                self.dispatch(holder.provider, now)
            else:
                self.arrange(holder.client, now)

    def regroup(self, client: Client, now: float) -> None:
        """The client's constraints changed: its targets wait under other terms. It has to be arranged then."""
        groups, client.groups = list(client.groups.values()), {}
        for group in groups:
            group.lane.queue.discard(group)
            for name in list(group.queue):
                self.join(client, client.terms(group.queue.ask(name), now), group.queue.ask(name), now)

    def _place(self, group: Group, now: float) -> None:
        """Into its lane if its client lets it, else out of it."""
        name = group.queue.top(now)
        if name is None:
            group.lane.queue.discard(group)
            group.client.groups.pop(group.terms, None)
            return
        group.opening = group.client.opens(group.terms, name, now)
        if group.opening[0] <= now:
            group.lane.queue.push(group, group.queue.ask(name), now)
            changes_at = group.queue.changes_at(now)
            if changes_at != group.changes_at:
                group.changes_at = changes_at
                if changes_at < inf:
                    heappush(group.lane.changes, (changes_at, next(self.numbers), group))
        else:
            group.lane.queue.discard(group)
            self._arm(group, name, group.opening[0], now)

    def _first(self, lane: Lane, now: float) -> Group | None:
        """The most urgent group of a lane, if it may go now."""
        while lane.changes and lane.changes[0][0] <= now:
            at, _, changed = heappop(lane.changes)
            if changed in lane.queue and changed.changes_at == at:
                self._place(changed, now)
        while (group := lane.queue.top(now)) is not None:
            self._place(group, now)  # time passed since it was put there
            if group not in lane.queue:
                continue
            opens, _ = lane.opens(now)
            if opens <= now:
                return group
            name = group.queue.top(now)
            if name is not None:
                self._arm(lane, name, opens, now)
            return None
        return None

    def _offer(self, group: Group, now: float) -> None:
        name = group.queue.top(now)
        if name is None:
            return
        ask = group.queue.ask(name)
        self.leave(name)
        self.offers[name] = launch(next(self.numbers), group.client, group.terms, ask, now)
        self.wake(name, now)
        for each in list(group.client.groups.values()):
            self._place(each, now)

    def _arm(self, holder: Group | Lane, name: str, at: float, now: float) -> None:
        """Have the most urgent target of a group or lane request at the moment at which that opens."""
        if at == inf or (holder.armed is not None and holder.armed[0] == name and now < holder.armed[1] <= at):
            return
        holder.armed = (name, at)
        heappush(self._alarms, (at, next(self.numbers), holder))
        self.wake(name, at)

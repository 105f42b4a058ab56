"""Who may go: the doors of clients and providers, and what rate limits still allow. Pure.

A refused client is refused for all its tokens, so one of them probes and the others wait. So it is with
a provider that fails for several. And a client that has not answered lately makes its first grant alone:
ten at once with a secret that was revoked in the meantime could lock the account.

A door never decides when a target's turn is; it only lets it go or names a later moment. Those it held
are named when it opens, to be given a turn at once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass, field
from math import inf
from typing import Final

from bearerd.grant.outcome import Issued, Outcome, Refused, Transient, Unsent
from bearerd.lifecycle import policy
from bearerd.model import Provider, Target

# Who is held is woken when the door opens; this only bounds what a lost wake-up could cost.
_LOOK_AGAIN: Final = 300.0
# A client that got a token within this is not about to be refused eight times at once.
_LATELY: Final = 60.0
# One target that fails may be the one that is wrong; two make it the provider.
_SEVERAL: Final = 2


@dataclass(slots=True)
class _ClientDoor:
    """Open to one, until it has shown that the client is not refused; then to all."""

    proven: bool = False
    answered_at: float = -inf
    refusals: int = 0
    refused_at: float = -inf
    open_at: float = 0.0
    asking: str | None = None
    attempts: list[float] = field(default_factory=list)
    entered: dict[str, float] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)

    def until(self, name: str, now: float, remaining: float) -> float:
        """`now` if this target may go, else when to look again."""
        if self.refusals == 0 and now - self.answered_at <= _LATELY:
            return now
        if self.asking not in (None, name):
            return now + _LOOK_AGAIN
        if self.refusals == 0:
            return now
        self.attempts = policy.forget(self.attempts, policy.REFUSALS, now)
        at = now if policy.is_last_chance(remaining) else max(now, self.open_at)
        return max(at, policy.reserve(self.attempts, policy.REFUSALS, now))

    def enter(self, name: str, now: float) -> None:
        self.held.discard(name)
        self.entered[name] = now
        if self.refusals or now - self.answered_at > _LATELY:
            self.asking = name

    def report(self, name: str, outcome: Outcome | None, now: float, wait: float) -> set[str]:
        if self.asking == name:
            self.asking = None
        entered = self.entered.pop(name, now)
        if isinstance(outcome, Refused) and outcome.whole_client:
            insort(self.attempts, entered)
            self.held.add(name)
            if entered >= self.refused_at:  # those that were under way by then say nothing new
                self.refusals += 1
                self.open_at = now + wait
                self.refused_at = now
            return set()
        if isinstance(outcome, Issued | Refused):  # a token that was refused alone shows the client was not
            self.proven, self.refusals, self.refused_at, self.answered_at = True, 0, -inf, now
            self.attempts = []
            return self._release(len(self.held))
        # Nothing is known yet: the next one finds out.
        return self._release(1) if self.refusals == 0 else set()

    def _release(self, count: int) -> set[str]:
        released = set(sorted(self.held)[:count])
        self.held -= released
        return released


@dataclass(slots=True)
class _ProviderDoor:
    """Open, but to those who failed since it last answered, when they are several."""

    failed: set[str] = field(default_factory=set)
    open_at: float = 0.0
    asking: str | None = None
    held: set[str] = field(default_factory=set)

    def until(self, name: str, now: float, remaining: float) -> float:
        if name not in self.failed or len(self.failed) < _SEVERAL:
            return now
        # The one with least time left sets the pace for all.
        urgent = now + policy.longest_wait(remaining)
        if self.asking not in (None, name):
            return min(now + _LOOK_AGAIN, urgent)
        self.open_at = min(self.open_at, urgent)
        return max(now, self.open_at)

    def enter(self, name: str) -> None:
        self.held.discard(name)
        if name in self.failed:
            self.asking = name

    def report(self, name: str, outcome: Outcome | None, now: float, wait: float) -> set[str]:
        if self.asking == name:
            self.asking = None
        if isinstance(outcome, Transient):
            self.failed.add(name)
            self.open_at = now + wait
            return set()
        count = 1
        if outcome is not None:  # any answer is an answer
            self.failed.clear()
            count = len(self.held)
        released = set(sorted(self.held)[:count])
        self.held -= released
        return released


class _Budgets:
    """What rate limits allow: the moments of grants that were sent, and of those that were promised one."""

    def __init__(self) -> None:
        self._sent: defaultdict[str, list[float]] = defaultdict(list)
        self._taken: defaultdict[str, list[float]] = defaultdict(list)
        """Sent and promised."""
        self._promised: dict[str, float] = {}

    def until(self, target: Target, now: float) -> float:
        """`now` if the limits allow a grant, else the moment that is promised to this target.

        A promise spreads those who wait; the limit itself is kept by what was really sent.
        """
        name, budgets = target.full_name, target.client.budgets
        promised = self._promised.get(name)
        if promised is not None and promised > now:
            return promised
        free = slot = now
        for budget, limit in budgets:
            self._sent[budget] = policy.forget(self._sent[budget], limit, now)
            self._taken[budget] = policy.forget(self._taken[budget], limit, now)
            free = max(free, policy.reserve(self._sent[budget], limit, now))
            slot = max(slot, policy.reserve(self._taken[budget], limit, now))
        if promised is not None:
            return free
        if slot > now:
            self._promised[name] = slot
            for budget, _ in budgets:
                insort(self._taken[budget], slot)
        return slot

    def enter(self, target: Target, now: float) -> None:
        promised = self._promised.pop(target.full_name, None)
        for budget, _ in target.client.budgets:
            if promised is not None:
                _remove(self._taken[budget], promised)
            insort(self._taken[budget], now)
            insort(self._sent[budget], now)

    def give_back(self, target: Target, entered: float) -> None:
        for budget, _ in target.client.budgets:
            _remove(self._taken[budget], entered)
            _remove(self._sent[budget], entered)


def _remove(moments: list[float], moment: float) -> None:
    index = bisect_left(moments, moment)
    if index < len(moments) and moments[index] == moment:
        del moments[index]


class Doors:
    """The doors of all clients and providers, and their budgets.

    Not safe for threads: its caller serialises.
    """

    def __init__(self) -> None:
        self._clients: defaultdict[str, _ClientDoor] = defaultdict(_ClientDoor)
        self._providers: defaultdict[Provider, _ProviderDoor] = defaultdict(_ProviderDoor)
        self._budgets = _Budgets()

    def admit(self, target: Target, now: float, remaining: float = 0.0) -> float:
        """`now` if the target may ask its provider (who is let go must `report`), else when to come again.

        `remaining` is how many seconds its present token is still good.
        """
        name, client = target.full_name, self._clients[target.client.name]
        provider = self._providers[target.client.provider]
        until = provider.until(name, now, remaining)
        if until > now:
            provider.held.add(name)
            return until
        until = client.until(name, now, remaining)
        if until > now:
            client.held.add(name)
            return until
        until = self._budgets.until(target, now)
        if until > now:
            return until
        client.enter(name, now)
        provider.enter(name)
        self._budgets.enter(target, now)
        return now

    def report(self, target: Target, outcome: Outcome | None, now: float, wait: float = 0.0) -> set[str]:
        """What a grant came to (None: it broke off), and how long this target waits for it.

        Returns the names of targets that were held and may go now.
        """
        name, client = target.full_name, self._clients[target.client.name]
        if isinstance(outcome, Unsent):  # cost nobody anything, and tells nothing of client or provider
            self._budgets.give_back(target, client.entered.get(name, now))
            outcome = None
        provider = self._providers[target.client.provider]
        return client.report(name, outcome, now, wait) | provider.report(name, outcome, now, wait)

    def prove(self, target: Target) -> None:
        """These credentials worked before: a token of theirs is in a record."""
        self._clients[target.client.name].proven = True

    def proven(self, target: Target) -> bool:
        """Whether these credentials ever got a token."""
        return self._clients[target.client.name].proven

    def refusals(self, target: Target) -> int:
        """How often in a row the target's client was refused."""
        return self._clients[target.client.name].refusals

"""Who may go: the doors of a client that was refused and of a provider that is down. Pure.

A refused client is refused for all its tokens, so one of them probes and the others wait. So it is with
a provider that fails for all its targets, and with a client that never had a token: its first grant goes
alone, since ten at once with a wrong secret could lock the account.

A door never decides when a target's turn is; it only lets it go or names a later moment. Those it held
are named when it opens, to be given a turn at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from bearerd.grant.outcome import Issued, Outcome, Refused, Transient, Unsent
from bearerd.lifecycle import policy
from bearerd.model import Provider, Target

# Who is held is woken when the door opens; this only bounds what a lost wake-up could cost.
_LOOK_AGAIN: Final = 300.0
# One target that fails may be the one that is wrong; two make it the provider.
_SEVERAL: Final = 2


@dataclass(slots=True)
class _ClientDoor:
    """Open, unless the client was refused, or never had a token and one is asking."""

    proven: bool = False
    refusals: int = 0
    open_at: float = 0.0
    asking: str | None = None
    attempts: list[float] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    def until(self, name: str, now: float, *, last_chance: bool) -> float:
        """`now` if this target may go, else when to look again."""
        if self.refusals == 0:
            alone = not self.proven and self.asking not in (None, name)
            return now + _LOOK_AGAIN if alone else now
        if self.asking not in (None, name):
            return now + _LOOK_AGAIN
        self.attempts = policy.forget(self.attempts, policy.REFUSALS, now)
        at = now if last_chance else max(now, self.open_at)
        return max(at, policy.reserve(self.attempts, policy.REFUSALS, now))

    def enter(self, name: str, now: float) -> None:
        if self.refusals or not self.proven:
            self.asking = name
            self.attempts.append(now)

    def report(self, name: str, outcome: Outcome | None, now: float, wait: float) -> set[str]:
        counted = self.asking == name
        if counted:
            self.asking = None
        if isinstance(outcome, Refused) and outcome.whole_client:
            if not counted:  # it went while the door was open
                self.attempts.append(now)
            self.refusals += 1
            self.open_at = now + wait
            return set()
        if isinstance(outcome, Issued | Refused):  # a token that was refused alone shows the client was not
            self.proven, self.refusals, self.attempts = True, 0, []
            return self._release(len(self.held))
        # Nothing is known yet: the next one finds out.
        return self._release(1) if not self.refusals and not self.proven else set()

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

    def until(self, name: str, now: float) -> float:
        if name not in self.failed or len(self.failed) < _SEVERAL:
            return now
        if self.asking not in (None, name):
            return now + _LOOK_AGAIN
        return max(now, self.open_at)

    def enter(self, name: str) -> None:
        if name in self.failed:
            self.asking = name

    def report(self, name: str, outcome: Outcome | None, now: float, wait: float) -> set[str]:
        if self.asking == name:
            self.asking = None
        if isinstance(outcome, Transient):
            self.failed.add(name)
            self.open_at = now + wait
            return set()
        if outcome is None:
            return set()
        self.failed.clear()
        released, self.held = self.held, set()
        return released


class Doors:
    """The doors of all clients and providers, and what their rate limits still allow.

    Not safe for threads: its caller serialises.
    """

    def __init__(self) -> None:
        self._clients: defaultdict[str, _ClientDoor] = defaultdict(_ClientDoor)
        self._providers: defaultdict[Provider, _ProviderDoor] = defaultdict(_ProviderDoor)
        self._taken: defaultdict[str, list[float]] = defaultdict(list)
        self._promised: dict[str, float] = {}

    def admit(self, target: Target, now: float, *, last_chance: bool = False) -> float:
        """`now` if the target may ask its provider (who lets it go must `report`), else when to come again."""
        name, client = target.full_name, self._clients[target.client.name]
        provider = self._providers[target.client.provider]
        until = provider.until(name, now)
        if until > now:
            provider.held.add(name)
            return until
        until = client.until(name, now, last_chance=last_chance)
        if until > now:
            client.held.add(name)
            return until
        until = self._slot(target, now)
        if until > now:
            return until
        self._promised.pop(name, None)
        client.held.discard(name)
        provider.held.discard(name)
        client.enter(name, now)
        provider.enter(name)
        return now

    def report(self, target: Target, outcome: Outcome | None, now: float, wait: float = 0.0) -> set[str]:
        """What a grant came to (None: it broke off), and how long this target waits for it.

        Returns the names of targets that were held and may go now.
        """
        name = target.full_name
        if isinstance(outcome, Unsent):  # tells nothing of client or provider
            outcome = None
        return self._clients[target.client.name].report(name, outcome, now, wait) | self._providers[
            target.client.provider
        ].report(name, outcome, now, wait)

    def prove(self, target: Target) -> None:
        """These credentials worked before: a token of theirs is in a record."""
        self._clients[target.client.name].proven = True

    def proven(self, target: Target) -> bool:
        """Whether these credentials ever got a token."""
        return self._clients[target.client.name].proven

    def refusals(self, target: Target) -> int:
        """How often in a row the target's client was refused."""
        return self._clients[target.client.name].refusals

    def _slot(self, target: Target, now: float) -> float:
        """When the rate limits allow this target's grant. It is promised then, so that none comes twice."""
        budgets = target.client.budgets
        if not budgets:
            return now
        name = target.full_name
        if name in self._promised:
            return self._promised[name]
        slot = now
        for budget, limit in budgets:
            self._taken[budget] = policy.forget(self._taken[budget], limit, now)
            slot = max(slot, policy.reserve(self._taken[budget], limit, now))
        for budget, _ in budgets:
            self._taken[budget].append(slot)
            self._taken[budget].sort()
        self._promised[name] = slot
        return slot

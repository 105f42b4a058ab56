"""Who may go: the doors of clients and providers, and what rate limits still allow. Pure.

A refused client is refused for all its tokens, so one of them probes and the others wait. So it is with
a provider that fails for several. And a client that has not answered lately makes its first grant alone:
ten at once with a secret that was revoked in the meantime could lock the account.

A door never decides when a target's turn is; it only lets it go or names a later moment. Those it held
are named when it opens, to be given a turn at once.

What lies behind a refusal, and what limits have used up, is to outlive a restart: it can be dumped and
loaded, with every moment as an age, since the boot clock does not outlive one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Literal

from bearerd.grant.outcome import Failure, Issued, Outcome, Refused, Transient, Unsent
from bearerd.lifecycle import policy
from bearerd.model import Provider, RateLimit, Target

# Who is held is woken when the door opens; this only bounds what a lost wake-up could cost.
_LOOK_AGAIN: Final = 300.0
# A client that got a token within this is not about to be refused eight times at once.
_LATELY: Final = 60.0
WORTH_KEEPING: Final = 60.0
"""Seconds. The limits of shorter windows are over when a restart is."""
Kind = Literal["clients", "budgets"]
# One target that fails may be the one that is wrong; two make it the provider.
_SEVERAL: Final = 2


Reason = Literal["", "asking", "refused", "provider", "rate_limit"]


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a target may go (`until` is now), or when to come again and what holds it until then."""

    until: float
    reason: Reason = ""


@dataclass(slots=True)
class _ClientDoor:
    """Open to one, until it has shown that the client is not refused; then to all."""

    proven: bool = False
    answered_at: float = -inf
    shut: bool = False
    last: Refused | None = None
    refusals: int = 0
    """In a row, without those after which another secret was tried."""
    refused_at: float = -inf
    open_at: float = 0.0
    asking: str | None = None
    attempts: list[float] = field(default_factory=list)
    """Those that were refused, whatever came after: a provider that locks accounts counts them all."""
    entered: dict[str, float] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    kept: bool = False
    """Whether something of it is kept for after a restart."""

    def until(self, name: str, now: float, remaining: float) -> Admission:
        """Whether this target may go, else when to look again."""
        self.attempts = policy.forget(self.attempts, policy.REFUSALS, now)
        lately = not self.shut and now - self.answered_at <= _LATELY
        if not lately and self.asking not in (None, name):
            return Admission(now + _LOOK_AGAIN, "asking")
        at = max(now, self.open_at) if self.shut and not policy.is_last_chance(remaining) else now
        at = max(at, policy.reserve(self.attempts, policy.REFUSALS, now))
        if at > now:
            return Admission(at, "refused")
        if self.attempts:
            # Whoever is under way may be refused too.
            taken = sorted((*self.attempts, *self.entered.values()))
            return Admission(policy.reserve(taken, policy.REFUSALS, now), "asking")
        return Admission(now)

    def enter(self, name: str, now: float) -> None:
        self.held.discard(name)
        self.entered[name] = now
        if self.shut or now - self.answered_at > _LATELY:
            self.asking = name

    def report(self, name: str, outcome: Outcome | None, now: float, wait: float) -> set[str]:
        if self.asking == name:
            self.asking = None
        entered = self.entered.pop(name, now)
        if isinstance(outcome, Refused) and outcome.whole_client:
            insort(self.attempts, entered)
            self.held.add(name)
            if entered >= self.refused_at:  # those that were under way by then say nothing new
                self.shut, self.last = True, outcome
                self.refusals += not outcome.another_secret
                self.open_at = now + wait
                self.refused_at = now
            return set()
        if isinstance(outcome, Issued | Refused):  # a token that was refused alone shows the client was not
            self.proven, self.answered_at = True, now
            return self.open()
        # Nothing is known yet: the next one finds out.
        return set() if self.shut else self._release(1)

    def open(self) -> set[str]:
        self.shut, self.last, self.refusals, self.refused_at = False, None, 0, -inf
        return self._release(policy.REFUSALS.count if self.attempts else len(self.held))

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
        """`now` if this target may go, else when to look again."""
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
        self._limits: dict[str, RateLimit] = {}
        self.changed: set[str] = set()

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
            self._limits[budget] = limit
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

    def ask(self, target: Target, now: float) -> float:
        """`now`, and a promise, if not more than half of each limit would be used then; else when that is so."""
        until = now
        for budget, limit in target.client.budgets:
            self._limits[budget] = limit
            taken = self._taken[budget] = policy.forget(self._taken[budget], limit, now)
            half = RateLimit(limit.count // 2, limit.window)
            until = max(until, policy.reserve(taken, half, now) if half.count else now + limit.window)
        if until == now and target.client.budgets and target.full_name not in self._promised:
            self._promised[target.full_name] = now
            for budget, _ in target.client.budgets:
                insort(self._taken[budget], now)
        return until

    def enter(self, target: Target, now: float) -> None:
        promised = self._promised.pop(target.full_name, None)
        for budget, _ in target.client.budgets:
            if promised is not None:
                _remove(self._taken[budget], promised)
            insort(self._taken[budget], now)
            insort(self._sent[budget], now)
            self.changed.add(budget)

    def give_back(self, target: Target, entered: float) -> None:
        for budget, _ in target.client.budgets:
            _remove(self._taken[budget], entered)
            _remove(self._sent[budget], entered)
            self.changed.add(budget)

    def dump(self, now: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those that changed, as the ages of their grants."""
        for budget in sorted(self.changed):
            limit = self._limits.get(budget)
            if limit is not None and limit.window >= WORTH_KEEPING:
                yield budget, {"sent": [now - moment for moment in policy.forget(self._sent[budget], limit, now)]}
        self.changed.clear()

    def load(self, budget: str, ages: Iterable[float], now: float) -> None:
        """Grants that were sent that long ago, before this start."""
        for age in ages:
            insort(self._sent[budget], now - max(0.0, age))
            insort(self._taken[budget], now - max(0.0, age))


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
        self._changed: set[str] = set()

    def admit(self, target: Target, now: float, remaining: float = 0.0) -> Admission:
        """Whether the target may ask its provider (who is let go must `report`), else when to come again.

        `remaining` is how many seconds its present token is still good.
        """
        name, client = target.full_name, self._clients[target.client.name]
        provider = self._providers[target.client.provider]
        until = provider.until(name, now, remaining)
        if until > now:
            provider.held.add(name)
            return Admission(until, "provider")
        admission = client.until(name, now, remaining)
        if admission.until > now:
            client.held.add(name)
            return admission
        until = self._budgets.until(target, now)
        if until > now:
            return Admission(until, "rate_limit")
        client.enter(name, now)
        if client.shut or client.kept:  # a process that is killed meanwhile does not hear whether it was refused
            self._changed.add(target.client.name)
        provider.enter(name)
        self._budgets.enter(target, now)
        return Admission(now)

    def ask(self, target: Target, now: float) -> float:
        """When somebody who asks may have a grant besides the regular ones: `now`, else a later moment.

        They may use half of a rate limit, so that a renewal that is due never waits for them.
        """
        return self._budgets.ask(target, now)

    def report(self, target: Target, outcome: Outcome | None, now: float, wait: float = 0.0) -> set[str]:
        """What a grant came to (None: it broke off), and how long this target waits for it.

        Returns the names of targets that were held and may go now.
        """
        name, client = target.full_name, self._clients[target.client.name]
        if isinstance(outcome, Failure) and not outcome.reached_the_endpoint:
            self._budgets.give_back(target, client.entered.get(name, now))
        if isinstance(outcome, Unsent):  # tells nothing of client or provider
            outcome = None
        provider = self._providers[target.client.provider]
        released = client.report(name, outcome, now, wait) | provider.report(name, outcome, now, wait)
        if client.shut or client.kept:
            self._changed.add(target.client.name)
        return released

    def prove(self, target: Target) -> None:
        """These credentials worked before: a token of theirs is in a record."""
        self._clients[target.client.name].proven = True

    def proven(self, target: Target) -> bool:
        """Whether these credentials ever got a token."""
        return self._clients[target.client.name].proven

    def refusals(self, target: Target) -> int:
        """How often in a row the target's client was refused."""
        return self._clients[target.client.name].refusals

    def refusal(self, client: str) -> Refused | None:
        """How this client was refused last, while it is."""
        return self._clients[client].last

    def renew(self, client: str) -> set[str]:
        """The client has what was not refused yet: it may go at once. Returns who was held."""
        self._changed.add(client)
        return self._clients[client].open()

    # -- what outlives a restart -----------------------------------------------------------------

    def changes(self, now: float) -> list[tuple[Kind, str, dict[str, Any]]]:
        """What has to be kept of all that changed since the last call; nothing where nothing is to be known."""
        changed, self._changed = self._changed, set()
        result: list[tuple[Kind, str, dict[str, Any]]] = []
        for name in sorted(changed):
            fields = _dump_client(self._clients[name], now)
            self._clients[name].kept = bool(fields)
            result.append(("clients", name, fields))
        result += [("budgets", name, fields) for name, fields in self._budgets.dump(now)]
        return result

    def restore(self, kind: Kind, name: str, fields: Mapping[str, Any], elapsed: float, now: float) -> None:
        """What `changes` gave that many seconds ago.

        Raises ValueError, TypeError, KeyError or OverflowError for anything else.
        """
        if kind == "budgets":
            self._budgets.load(name, [float(age) + elapsed for age in fields["sent"]], now)
            return
        last = fields["message"] and Refused(str(fields["message"]), hint=fields["hint"] and str(fields["hint"]))
        self._clients[name] = _ClientDoor(
            proven=bool(fields["proven"]),
            shut=bool(last),
            last=last or None,
            refusals=max(0, int(fields["refusals"])),
            # Whatever was written there, nobody waits longer than anybody ever does.
            open_at=now + min(float(fields["opens_in"]), policy.LONGEST_WAIT) - elapsed,
            attempts=sorted(now - max(0.0, float(age) + elapsed) for age in fields["attempts"]),
            kept=True,
        )


def _dump_client(door: _ClientDoor, now: float) -> dict[str, Any]:
    attempts = policy.forget(door.attempts, policy.REFUSALS, now)
    if not door.shut and not attempts:
        return {}
    return {
        "proven": door.proven,
        "refusals": door.refusals,
        "opens_in": door.open_at - now,
        "attempts": [now - moment for moment in (*attempts, *door.entered.values())],
        "message": door.last and door.last.message,
        "hint": door.last and door.last.hint,
    }

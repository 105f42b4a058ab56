"""The circuit breaker of one client, and the backoff of its targets that are refused on their own. Pure.

closed      a token arrived within the last minute: all targets may go (four at a time when it is over a second old)
half-open   no token arrived within the last minute: one attempt at a time, so that a revoked secret is refused once
open        the client was refused: one probe at growing intervals, each time with a different target

A refusal first counts against the client. If another target of the client then gets a token, the refusal was the
target's own: the target gets its own backoff and no longer holds the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, isnan
from typing import Any, Final

from bearerd.admission.ledger import Entry
from bearerd.admission.types import BreakerState, Reason
from bearerd.grant.outcome import Refused
from bearerd.terms import LATELY

# For a second after a token, the attempts in flight are not limited, so that a burst at a start is not slowed down.
_JUST_NOW: Final = 1.0
_FEW: Final = 4
"""Attempts in flight when the last token is over a second old: the default of `refused_limit`."""

# Credentials that never worked stay wrong until an administrator corrects them.
_NEVER_WORKED: Final = (300.0,)
# Credentials that worked may be refused in passing, by a load balancer for example, or may have been revoked.
_WORKED: Final = (30.0, 60.0, 120.0, 240.0, 300.0)
# An hour: a corrected config wakes the target anyway, and a corrected registration is found within the hour.
LONGEST_PACE: Final = 3600.0
# The first target of a new client may be the only bad one. With the pace alone, ten targets of which one is good had
# their first token after 2.3 h on average.
FIRST_TARGETS: Final = 3
_FIRST_INTERVAL: Final = 2.0
# A secret that was not refused yet is tried without a backoff.
_OTHER_SECRET: Final = 1.0


def pace(refusals: int, *, worked: bool) -> float:
    """Seconds until the next attempt after this many refusals in a row (from 1)."""
    refusals = max(1, refusals)
    steps = _WORKED if worked else _NEVER_WORKED
    # The exponent is bounded: 2.0 ** 1024 is an error.
    doublings = min(max(0, refusals - len(steps)), 32)
    return min(steps[min(refusals, len(steps)) - 1] * 2.0**doublings, LONGEST_PACE)


@dataclass(frozen=True, slots=True)
class TargetRefusal:
    """The refusals of one target in a row."""

    outcome: Refused
    refusals: int
    at: float
    """The time of the last refusal."""
    next_at: float = 0.0
    """When it may try again, if it is refused on its own."""


class Breaker:
    """The circuit breaker of one client, driven by the outcomes of its attempts."""

    __slots__ = (
        "_dirty", "_early_at", "_last", "_last_sent", "_last_token", "_other_sent", "epoch", "in_flight", "own",
        "probe_at", "refusal", "refusals", "tried", "worked",
    )  # fmt: skip

    def __init__(self) -> None:
        self.worked = False
        """Whether these credentials ever got a token."""
        self.refusal: Refused | None = None
        """The last refusal of the client; None if it is not refused."""
        self.refusals = 0
        """Refusals in a row that lengthen the pace."""
        self.probe_at = 0.0
        self._early_at = 0.0
        self.tried: dict[str, TargetRefusal] = {}
        """Targets that were refused since the last token."""
        self.own: dict[str, TargetRefusal] = {}
        """Targets that are refused on their own."""
        self.in_flight = 0
        """Attempts with the current credentials, except those of targets that are refused on their own."""
        self.epoch = 0
        """Counts changes of the credentials. The outcome of an attempt from an earlier epoch is ignored."""
        self._dirty: set[str] = set()
        # Names of targets whose journal entry changed; "" stands for the client.
        self._last_token = -inf
        # When the last successful attempt was sent, its target, and when the last one of any other target was sent.
        self._last_sent, self._last, self._other_sent = -inf, "", -inf

    def state(self, now: float) -> BreakerState:
        """Closed, open or half-open. An open breaker half-opens when its probe is due or in flight."""
        if self.refusal is not None:
            return "open" if now < self.probe_at and not self.in_flight else "half_open"
        return "closed" if self.closed(now) else "half_open"

    def closed(self, now: float) -> bool:
        """Whether the breaker is closed: all targets may go."""
        return self.refusal is None and now - self._last_token <= LATELY

    def earliest(self, now: float, *, tried: bool) -> tuple[float, Reason]:
        """When one more attempt may go (`inf`: an attempt in flight decides), and the reason that holds it.

        `tried`: whether the target was refused since the last token.
        """
        if self.refusal is not None:
            if self.in_flight:
                return inf, "refused"
            return max(now, self.probe_at if tried else self._early_at), "refused"
        ago = now - self._last_token
        most = inf if ago <= _JUST_NOW else _FEW if ago <= LATELY else 1
        return (now if self.in_flight < most else inf), "half_open"

    def next_for_others(self) -> float:
        """When a target may go that was not refused since the last token."""
        return self._early_at

    # -- outcomes ------------------------------------------------------------------------------

    def got_token(self, name: str, sent: float, now: float) -> None:
        """Close the breaker. Targets that were refused meanwhile are refused on their own from now on."""
        if self.refusal is not None or self.refusals:
            self._dirty.add("")
        self.worked, self.refusal, self.refusals, self._last_token = True, None, 0, now
        if name == self._last:
            self._last_sent = max(self._last_sent, sent)
        elif sent >= self._last_sent:
            self._other_sent, self._last_sent, self._last = max(self._other_sent, self._last_sent), sent, name
        else:
            self._other_sent = max(self._other_sent, sent)
        if name in self.own or name in self.tried:
            self.forget(name)
        for other, own in self.tried.items():
            self._dirty.add(other)
            self.own[other] = replace(own, next_at=own.at + pace(own.refusals, worked=True))
        self.tried.clear()

    def refused_client(self, name: str, outcome: Refused, sent: float, now: float, *, governed: bool) -> None:
        """Note that the target was refused with a code that concerns the whole client."""
        # It is the target's own if another target got a token with a later attempt.
        if name in self.own or (self._other_sent if name == self._last else self._last_sent) > sent:
            self._again(name, outcome, now)
            return
        self._dirty |= {"", name}
        if outcome.another_secret:
            self.refusal, self.probe_at, self._early_at = outcome, now + _OTHER_SECRET, now + _OTHER_SECRET
            return
        tried = self.tried.get(name)
        self.tried[name] = TargetRefusal(outcome, tried.refusals + 1 if tried else 1, now)
        if self.refusal is not None and not governed:
            return  # it was in flight when the first refusal arrived, and says nothing new
        self.refusals = max(self.refusals, outcome.before)
        if self.refusal is None or self.refusal.another_secret or sent >= self.probe_at:
            self.refusals += 1
        self.refusal = outcome
        self._wait(now, outcome.before)

    def refused_target(self, name: str, outcome: Refused, now: float) -> None:
        """Note that the target was refused with a code that concerns this target alone: its client is authenticated."""
        if self.refusal is not None:
            self.refusal = None
            self._dirty.add("")
        self.tried.pop(name, None)
        self._again(name, outcome, now)

    def fleet_refused(self, name: str, outcome: Refused, refusals: int, wait: float, now: float) -> None:
        """Note that another daemon of the fleet was refused. The fleet makes its next attempt in `wait` seconds.

        `refusals` counts refusals in a row, this one included.
        """
        if outcome.whole_client:
            self._dirty.add("")
            self.refusal, self.refusals = outcome, max(self.refusals, refusals)
            self.probe_at = self._early_at = now + wait
            return
        self._dirty.add(name)
        self.tried.pop(name, None)
        known = self.own.get(name)
        refusals = max(refusals, known.refusals if known else 0)
        self.own[name] = TargetRefusal(outcome, refusals, now, now + wait)

    def unclear(self, name: str, now: float, *, governed: bool) -> bool:
        """Note an attempt that may have reached the endpoint, with an outcome that says nothing about the credentials.

        After a refusal it changes neither pace nor reason. Returns whether the attempt counts as refused.
        """
        own = self.own.get(name)
        if own is not None:
            self.own[name] = replace(own, next_at=max(own.next_at, now + pace(own.refusals, worked=True)))
            self._dirty.add(name)
            return governed
        if self.refusal is None or not governed:
            return False
        self._wait(now)
        self._dirty.add("")
        return True

    def forgive(self) -> None:
        """Forget all refusals, because the credentials changed."""
        self._dirty |= {"", *self.tried, *self.own}
        self.refusal, self.refusals = None, 0
        self.tried.clear()
        self.own.clear()
        self._last_token = self._last_sent = self._other_sent = -inf
        self._last = ""
        self.in_flight = 0
        self.epoch += 1

    def forget(self, name: str) -> None:
        """Remove a target that is no longer wanted."""
        self._dirty.add(name)
        self.tried.pop(name, None)
        self.own.pop(name, None)

    def _again(self, name: str, outcome: Refused, now: float) -> None:
        """Count a refusal of the target on its own."""
        self._dirty.add(name)
        known = self.own.get(name)
        refusals = max(known.refusals if known else 0, outcome.before) + (not outcome.another_secret)
        wait = _OTHER_SECRET if outcome.another_secret else pace(refusals, worked=True)
        self.own[name] = TargetRefusal(outcome, refusals, now, now + wait)

    def _wait(self, now: float, before: int = 0) -> None:
        """Set the time of the next probe. `before`: refusals by the whole fleet, which tries three targets in all."""
        self.probe_at = self._early_at = now + pace(self.refusals, worked=self.worked)
        if not self.worked and max(len(self.tried), before + 1) < FIRST_TARGETS:
            self._early_at = now + _FIRST_INTERVAL

    # -- over restarts -------------------------------------------------------------------------

    def take_entries(self, client: str, now: float) -> list[Entry]:
        """Journal entries for all changes since the last call."""
        if not self._dirty:
            return []
        dirty, self._dirty = sorted(self._dirty), set()
        return [self._target_entry(client, name, now) if name else self._client_entry(client, now) for name in dirty]

    def entries(self, client: str, now: float) -> Iterator[Entry]:
        """All journal entries that a restart needs."""
        if self.refusal is not None or self.refusals:
            yield self._client_entry(client, now)
        for name in (*self.tried, *self.own):
            yield self._target_entry(client, name, now)

    def restore(self, fields: list[Any], age: float, now: float) -> None:
        """Restore a client's entry that is `age` seconds old.

        Raises ValueError, TypeError or OverflowError for fields that `entries` never writes, without any change.
        """
        worked, refusals, probe_in, early_in, refused = fields
        probe_at, early_at = now + _wait_left(probe_in, age), now + _wait_left(early_in, age)
        refusal, refusals = _load_refused(refused) if refused else None, max(0, int(refusals))
        self.worked, self.refusals, self.refusal = bool(worked), refusals, refusal
        self.probe_at, self._early_at = probe_at, early_at

    def restore_target(self, name: str, fields: list[Any], age: float, now: float) -> None:
        """Restore a target's entry that is `age` seconds old. Raises like `restore`."""
        is_own, refusals, ago, next_in, refused = fields
        at, next_at = now - max(0.0, float(ago)) - age, now + _wait_left(next_in, age)
        own = TargetRefusal(_load_refused(refused), max(0, int(refusals)), at, next_at)
        if own.at > now - LONGEST_PACE - pace(own.refusals, worked=True):  # older refusals no longer matter
            (self.own if is_own else self.tried)[name] = own

    def _client_entry(self, client: str, now: float) -> Entry:
        if self.refusal is None and not self.refusals:
            return ["client", client, None]
        waits = [self.probe_at - now, self._early_at - now]
        return ["client", client, [self.worked, self.refusals, *waits, _dump_refused(self.refusal)]]

    def _target_entry(self, client: str, name: str, now: float) -> Entry:
        own = self.own.get(name) or self.tried.get(name)
        if own is None:
            return ["target", client, name, None]
        times = [now - own.at, own.next_at - now]
        return ["target", client, name, [name in self.own, own.refusals, *times, _dump_refused(own.outcome)]]


def _wait_left(seconds: Any, age: float) -> float:
    # A damaged entry must not hold a target for longer than the longest pace.
    value = float(seconds)
    if isnan(value):
        raise ValueError
    return min(value, LONGEST_PACE) - age


def _dump_refused(outcome: Refused | None) -> list[Any] | None:
    return None if outcome is None else [outcome.message, outcome.hint, outcome.request]


def _load_refused(value: Any) -> Refused:
    message, hint, request = value
    return Refused(str(message), hint=None if hint is None else str(hint), request=str(request))

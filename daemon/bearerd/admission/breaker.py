"""The circuit breaker of one client, and the pace of its targets that are refused on their own. Pure.

closed      a token came within the last minute: all targets go (four at a time once it is over a second ago)
half-open   no token came lately: one attempt at a time, so that a secret that was revoked meanwhile is refused once
open        the client was refused: a probe at growing intervals, each time another target

A refusal is at first the client's. Once another target of the client gets a token, it was the refused target's
own: that target has a pace of its own from then on and holds nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan
from typing import Any, Final

from bearerd.admission.ledger import Entry
from bearerd.admission.types import BreakerState, Reason
from bearerd.grant.outcome import Refused

LATELY: Final = 60.0
"""Seconds after a token for which the client is not probed by one attempt alone."""
_JUST_NOW: Final = 1.0
_FEW: Final = 4
"""Attempts in flight when the last token is over a second ago: as many as a default `refused_limit` has."""

# Credentials that never worked are wrong until somebody corrects them.
_NEVER_WORKED_FIRST: Final = 300.0
# Credentials that worked: a load balancer's passing 401 is real, a revoked secret too.
_WORKED: Final = (30.0, 60.0, 120.0, 240.0, 300.0)
LONGEST_PACE: Final = 3600.0
# A client that never had a token may have one bad target among good ones: with the pace alone the first token of
# ten targets, one of them good, came after 2.3 h on average.
FIRST_TARGETS: Final = 3
_FIRST_INTERVAL: Final = 2.0
# Another secret of the client was not refused yet: it is tried at once.
_OTHER_SECRET: Final = 1.0


def pace(refusals: int, *, worked: bool) -> float:
    """Seconds to the next attempt after that many refusals in a row (from 1)."""
    refusals = max(1, refusals)
    if not worked:
        first, doublings = _NEVER_WORKED_FIRST, refusals - 1
    elif refusals <= len(_WORKED):
        return _WORKED[refusals - 1]
    else:
        first, doublings = _WORKED[-1], refusals - len(_WORKED)
    # The exponent is bounded: 2.0 ** 1024 is an error.
    return min(first * 2.0 ** min(doublings, 32), LONGEST_PACE)


@dataclass(slots=True)
class Own:
    """A target that is refused (on its own, or by its client): how often in a row, and when it may try again."""

    outcome: Refused
    refusals: int
    at: float
    """When it was refused last."""
    next_at: float = 0.0


class Breaker:
    """What the outcomes of one client say about its credentials."""

    __slots__ = (
        "_dirty", "_early_at", "_last", "_last_sent", "_last_token", "_other_sent", "epoch", "in_flight", "own",
        "probe_at", "refusal", "refusals", "tried", "worked",
    )  # fmt: skip

    def __init__(self) -> None:
        self.worked = False
        """Whether these credentials ever got a token."""
        self.refusal: Refused | None = None
        """How the client was refused last, while it is."""
        self.refusals = 0
        """In a row, as its pace counts them."""
        self.probe_at = 0.0
        self._early_at = 0.0
        self.tried: dict[str, Own] = {}
        """The targets that were refused since the last token."""
        self.own: dict[str, Own] = {}
        """The targets that are refused on their own."""
        self.in_flight = 0
        """Attempts with the present credentials, without those of targets that are refused on their own."""
        self.epoch = 0
        """Counts changes of the credentials: what was sent before one says nothing about the present ones."""
        self._dirty: set[str] = set()
        # The names of targets whose entries changed; "" for the client's own.
        self._last_token = -inf
        # When the latest attempt that got a token was sent and whose it was, and the same of any other target.
        self._last_sent, self._last, self._other_sent = -inf, "", -inf

    def state(self, now: float) -> BreakerState:
        """Closed, open or half-open; an open breaker half-opens when its probe is due or on its way."""
        if self.refusal is not None:
            return "open" if now < self.probe_at and not self.in_flight else "half_open"
        return "closed" if now - self._last_token <= LATELY else "half_open"

    def closed(self, now: float) -> bool:
        """Whether all targets may go."""
        return self.refusal is None and now - self._last_token <= LATELY

    def just_worked(self, now: float) -> bool:
        """Whether it is closed and a token came within the last second: the usual case in a burst."""
        return self.refusal is None and now - self._last_token <= _JUST_NOW

    def opens(self, now: float, *, tried: bool) -> tuple[float, Reason]:
        """When one more attempt may go (`now`, later, or `inf`: an attempt in flight tells) and what holds it.

        `tried`: whether the target was refused since the last token.
        """
        if self.refusal is not None:
            if self.in_flight:
                return inf, "refused"
            return max(now, self.probe_at if tried else self._early_at), "refused"
        ago = now - self._last_token
        most = inf if ago <= _JUST_NOW else _FEW if ago <= LATELY else 1
        return (now if self.in_flight < most else inf), "half_open"

    # -- outcomes ------------------------------------------------------------------------------

    def got_token(self, name: str, sent: float, now: float) -> None:
        """The target got a token: the client is not refused, and whoever was refused meanwhile is so on their own."""
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
            own.next_at = own.at + pace(own.refusals, worked=True)
            self.own[other] = own
        self.tried.clear()

    def refused_client(self, name: str, outcome: Refused, sent: float, now: float, *, governed: bool) -> None:
        """The target was refused with a code that means the client."""
        own = self.own.get(name)
        if own is None and (self._other_sent if name == self._last else self._last_sent) > sent:
            own = self.own[name] = Own(outcome, 0, now)  # another target got a token with a later attempt
        if own is not None:
            self._again(name, own, outcome, now)
            return
        self._dirty |= {"", name}
        if outcome.another_secret:
            self.refusal, self.probe_at, self._early_at = outcome, now + _OTHER_SECRET, now + _OTHER_SECRET
            return
        tried = self.tried.setdefault(name, Own(outcome, 0, now))
        tried.outcome, tried.at, tried.refusals = outcome, now, tried.refusals + 1
        if self.refusal is not None and not governed:
            return  # it was in flight when the first refusal came: nothing new
        if self.refusal is None or self.refusal.another_secret or sent >= self.probe_at:
            self.refusals += 1
        self.refusal = outcome
        self._wait(now)

    def refused_target(self, name: str, outcome: Refused, now: float) -> None:
        """The target was refused with a code that means it alone: its client was authenticated."""
        if self.refusal is not None:
            self.refusal = None
            self._dirty.add("")
        self.tried.pop(name, None)
        self._again(name, self.own.setdefault(name, Own(outcome, 0, now)), outcome, now)

    def unclear(self, name: str, now: float, *, governed: bool) -> bool:
        """An attempt that the endpoint may have seen came to nothing that tells whether it was refused.

        After a refusal it changes neither pace nor reason. Returns whether it has to count as refused.
        """
        own = self.own.get(name)
        if own is not None:
            own.next_at = max(own.next_at, now + pace(own.refusals, worked=True))
            self._dirty.add(name)
            return governed
        if self.refusal is None or not governed:
            return False
        self._wait(now)
        self._dirty.add("")
        return True

    def forgive(self) -> None:
        """The credentials changed: nothing that was refused says anything about the present ones."""
        self._dirty |= {"", *self.tried, *self.own}
        self.refusal, self.refusals = None, 0
        self.tried.clear()
        self.own.clear()
        self._last_token = self._last_sent = self._other_sent = -inf
        self._last = ""
        self.in_flight = 0
        self.epoch += 1

    def forget(self, name: str) -> None:
        """A target is no longer wanted."""
        self._dirty.add(name)
        self.tried.pop(name, None)
        self.own.pop(name, None)

    def _again(self, name: str, own: Own, outcome: Refused, now: float) -> None:
        self._dirty.add(name)
        own.outcome, own.at = outcome, now
        own.refusals += not outcome.another_secret
        own.next_at = now + (_OTHER_SECRET if outcome.another_secret else pace(own.refusals, worked=True))

    def _wait(self, now: float) -> None:
        self.probe_at = self._early_at = now + pace(self.refusals, worked=self.worked)
        if not self.worked and len(self.tried) < FIRST_TARGETS:
            self._early_at = now + _FIRST_INTERVAL

    # -- over restarts -------------------------------------------------------------------------

    def take_entries(self, client: str, now: float) -> list[Entry]:
        """What changed since the last call, for the journal."""
        if not self._dirty:
            return []
        dirty, self._dirty = sorted(self._dirty), set()
        return [self._target_entry(client, name, now) if name else self._client_entry(client, now) for name in dirty]

    def entries(self, client: str, now: float) -> Iterator[Entry]:
        """All that has to be known after a restart."""
        if self.refusal is not None or self.refusals:
            yield self._client_entry(client, now)
        for name in (*self.tried, *self.own):
            yield self._target_entry(client, name, now)

    def restore(self, fields: list[Any], age: float, now: float) -> None:
        """A client's entry, so many seconds old.

        Raises ValueError, TypeError or OverflowError for what `entries` never gives, and changes nothing then.
        """
        worked, refusals, probe_in, early_in, refused = fields
        probe_at, early_at = now + _wait_left(probe_in, age), now + _wait_left(early_in, age)
        refusal, refusals = _load_refused(refused) if refused else None, max(0, int(refusals))
        self.worked, self.refusals, self.refusal = bool(worked), refusals, refusal
        self.probe_at, self._early_at = probe_at, early_at

    def restore_target(self, name: str, fields: list[Any], age: float, now: float) -> None:
        """A target's entry, so many seconds old; raises as `restore` does."""
        is_own, refusals, ago, next_in, refused = fields
        own = Own(_load_refused(refused), max(0, int(refusals)), now - max(0.0, float(ago)) - age)
        own.next_at = now + _wait_left(next_in, age)
        if own.at > now - LONGEST_PACE - pace(own.refusals, worked=True):  # else long over
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
    # Whatever was written there, nobody waits longer than anybody ever does.
    value = float(seconds)
    if isnan(value):
        raise ValueError("not a number")
    return min(value, LONGEST_PACE) - age


def _dump_refused(outcome: Refused | None) -> list[Any] | None:
    return None if outcome is None else [outcome.message, outcome.hint, outcome.request]


def _load_refused(value: Any) -> Refused:
    message, hint, request = value
    return Refused(str(message), hint=None if hint is None else str(hint), request=str(request))

"""One rate limit, kept over any window. Pure.

An attempt counts from the moment it is sent until one window after its reply. The provider counts it somewhere between
the two, so none of its windows ever holds more attempts than the limit. An attempt without a reply counts as long as
it is in flight.

First tokens may use the whole limit. If the limit does not cover the renewals, they are made as late as possible
(`late`). If even that is too many, they are evenly spaced (`spaced`). Otherwise the limit is used up early and leaves
one long gap: 5.4 h for three 1 h tokens at 10/8h.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final, Literal
from zlib import crc32

from bearerd.terms import RateLimit

Kind = Literal["first", "renewal", "requested"]
"""A first token; a renewal, also of an expired token; a renewal that a user requested before it was due."""

Sent = tuple[float, float]
"""When an attempt was sent, and when the one before it was sent."""

LATEST: Final = 15.0
"""Seconds before expiry: a renewal under a scarce limit is due then at the latest, which leaves time for one retry."""
EARLIEST: Final = 30.0
"""Seconds before expiry: a renewal under a scarce limit is due then at the earliest."""
# Demand is summed as integers, in attempts per this many seconds, because sums of floats would drift.
_SCALE: Final = 1e12


def late_margin(name: str) -> float:
    """Seconds before expiry at which this target renews under a scarce limit, spread over the range by name."""
    return LATEST + (EARLIEST - LATEST) * (crc32(name.encode()) / 2**32)


class Rate:
    """The attempts that count against one rate limit, and the demand of its targets."""

    __slots__ = ("_demand", "_done", "_late_need", "_need", "_started", "in_flight", "limit")

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.in_flight = 0
        self._done: deque[float] = deque()
        """The times of replies, oldest first."""
        self._started = -inf
        """When the last attempt was sent."""
        self._demand: dict[str, tuple[int, int]] = {}
        self._need = self._late_need = 0

    # -- demand --------------------------------------------------------------------------------

    def expect(self, name: str, lifetime: float, period: float) -> None:
        """Note that a target renews every `period` seconds as planned, every `lifetime` at the latest; 0 if unknown."""
        self.forget(name)
        late = lifetime - (LATEST + EARLIEST) / 2
        need, late_need = int(_SCALE / period) if period > 0 else 0, int(_SCALE / late) if late > 0 else 0
        self._demand[name] = (need, late_need)
        self._need += need
        self._late_need += late_need

    def forget(self, name: str) -> None:
        """Remove a target's demand."""
        need, late = self._demand.pop(name, (0, 0))
        self._need -= need
        self._late_need -= late

    @property
    def late(self) -> bool:
        """Whether renewals have to be as late as possible, because the limit does not cover them as planned."""
        return self._need * self.limit.window > self.limit.count * _SCALE

    @property
    def spaced(self) -> bool:
        """Whether renewals have to be evenly spaced, because the limit does not cover them even when they are late."""
        return self._late_need * self.limit.window > self.limit.count * _SCALE

    # -- attempts ------------------------------------------------------------------------------

    def earliest(self, now: float, kind: Kind) -> float:
        """When one more attempt may be sent; `inf` if that depends on a reply."""
        done, window = self._done, self.limit.window
        while done and done[0] + window <= now:
            done.popleft()
        allowed = self.limit.count
        if kind == "requested":
            # Half, so that a due renewal never waits because of requested ones.
            allowed //= 2
            if not allowed:
                return now + window
        too_many = len(done) + self.in_flight - allowed + 1
        if too_many > len(done):
            return inf
        opens = now if too_many <= 0 else done[too_many - 1] + window
        if kind == "renewal" and self.spaced:
            opens = max(opens, self._started + window / self.limit.count)
        return opens

    def send(self, now: float) -> Sent:
        """Count an attempt as sent."""
        sent = (now, self._started)
        self._started = now
        self.in_flight += 1
        return sent

    def give_back(self, sent: Sent) -> None:
        """Give an attempt back that was not sent, or never reached the endpoint."""
        self.in_flight -= 1
        if self._started == sent[0]:
            self._started = sent[1]

    def replied(self, now: float) -> None:
        """Note that an attempt got its reply, or was given up."""
        self.in_flight -= 1
        self._done.append(now)

    def counts(self, now: float) -> bool:
        """Whether any attempt still counts."""
        return bool(self.in_flight) or next(self.ages(now), None) is not None

    # -- over restarts -------------------------------------------------------------------------

    def ages(self, now: float) -> Iterator[float]:
        """The ages, in seconds, of the replies that still count."""
        return (now - moment for moment in self._done if moment + self.limit.window > now)

    def restore(self, ages: Iterable[float], now: float) -> None:
        """Add replies of an earlier process, given their ages in seconds."""
        self._done = deque(sorted((*self._done, *(now - age for age in ages))))
        if self._done:
            self._started = max(self._started, self._done[-1])

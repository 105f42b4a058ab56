"""One rate limit, kept over any window. Pure.

An attempt counts from when it is sent until a window after its reply: wherever between the two the provider counts
it, no window of the provider's holds more than the limit. Without a reply it counts for as long as it is in flight.

First tokens may use all the room there is. When the limit does not cover what the renewals need, they are made
as late as possible (`late`), and when even that is too much, evenly spaced (`spaced`): a budget that is spent
early leaves one long gap (three 1 h tokens at 10/8h: 5.4 h).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final, Literal
from zlib import crc32

from bearerd.model import RateLimit

Kind = Literal["first", "renewal", "requested"]
"""A first token; a renewal (also of a token that has expired); a renewal that somebody asked for before it was due."""

Sent = tuple[float, float]
"""When an attempt was sent, and when the one before it."""

LATEST: Final = 15.0
EARLIEST: Final = 30.0
"""Seconds before expiry between which a renewal under a scarce limit is due: time for one retry."""
# Demand is summed in whole attempts per this many seconds: sums of floats would drift.
_SCALE: Final = 1e12


def late_margin(name: str) -> float:
    """Seconds before expiry at which this target renews under a scarce limit: spread over its range by name."""
    return LATEST + (EARLIEST - LATEST) * (crc32(name.encode()) / 2**32)


class Rate:
    """What one rate limit allows."""

    __slots__ = ("_demand", "_done", "_late_need", "_need", "_started", "in_flight", "limit")

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.in_flight = 0
        self._done: deque[float] = deque()
        """When replies came, oldest first."""
        self._started = -inf
        """When the last attempt was sent."""
        self._demand: dict[str, tuple[int, int]] = {}
        self._need = self._late_need = 0

    # -- what is needed ------------------------------------------------------------------------

    def expect(self, name: str, lifetime: float, period: float) -> None:
        """A target renews every `period` seconds as planned, or every `lifetime` at the latest; 0: not known."""
        late = lifetime - (LATEST + EARLIEST) / 2
        need = (int(_SCALE / period) if period > 0 else 0, int(_SCALE / late) if late > 0 else 0)
        known = self._demand.get(name, (0, 0))
        if need != known:
            self._demand[name] = need
            self._need += need[0] - known[0]
            self._late_need += need[1] - known[1]

    def forget(self, name: str) -> None:
        """A target needs nothing any more."""
        need, late = self._demand.pop(name, (0, 0))
        self._need -= need
        self._late_need -= late

    @property
    def late(self) -> bool:
        """Whether renewals are to be as late as possible: the limit does not cover them as planned."""
        return self._need * self.limit.window > self.limit.count * _SCALE

    @property
    def spaced(self) -> bool:
        """Whether renewals are to be evenly spaced: the limit does not cover them at their latest either."""
        return self._late_need * self.limit.window > self.limit.count * _SCALE

    # -- what is there -------------------------------------------------------------------------

    def opens(self, now: float, kind: Kind) -> float:
        """`now` if one more attempt may be sent, else when; `inf` if that depends on a reply."""
        done, window = self._done, self.limit.window
        while done and done[0] + window <= now:
            done.popleft()
        allowed = self.limit.count
        if kind == "requested":
            # Half, so that a renewal that is due never waits for those who ask.
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
        """An attempt goes."""
        sent = (now, self._started)
        self._started = now
        self.in_flight += 1
        return sent

    def give_back(self, sent: Sent) -> None:
        """That attempt did not go after all, or the endpoint never saw it."""
        self.in_flight -= 1
        if self._started == sent[0]:
            self._started = sent[1]

    def replied(self, now: float) -> None:
        """Its reply came, or nobody waits for it any longer."""
        self.in_flight -= 1
        self._done.append(now)

    # -- over restarts -------------------------------------------------------------------------

    def ages(self, now: float) -> Iterator[float]:
        """How long ago each reply came that still counts."""
        return (now - moment for moment in self._done if moment + self.limit.window > now)

    def restore(self, ages: Iterable[float], now: float) -> None:
        """Replies that an earlier process had, so many seconds ago."""
        self._done = deque(sorted((*self._done, *(now - age for age in ages))))
        if self._done:
            self._started = max(self._started, self._done[-1])

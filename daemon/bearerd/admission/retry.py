"""The retry budget of one provider, as gRPC and the AWS clients have it. Pure.

Retries after transient failures draw on it; first attempts do not, so nobody is hostage to another's failures.
"""

from __future__ import annotations

from math import inf
from typing import Final

CAPACITY: Final = 10
"""Retries that may go at once: a passing 503 that hit a few is gone with their next attempt."""
# Seconds for one more retry: at first, and at the most, while the provider answers nothing.
_INTERVAL: Final = 1.0
_LONGEST_INTERVAL: Final = 5.0  # after an outage the first answer, which fills the budget, is at most 5 s away
# Each retry without an answer makes the interval longer by this: it is at its longest after 40.
_SLOWER: Final = 0.1
# Sums of floats: a budget that lacks this little is full enough.
_ROUNDING: Final = 1e-9


class RetryBudget:
    """Ten retries at once, refilled one per second, slowing to one in five seconds; any answer fills it."""

    __slots__ = ("_at", "_left", "_unanswered")

    def __init__(self) -> None:
        self._left = float(CAPACITY)
        self._at = -inf
        self._unanswered = 0

    def left(self, now: float) -> float:
        """Retries that may be sent at once."""
        if self._left >= CAPACITY:
            return float(CAPACITY)
        return min(CAPACITY, self._left + max(0.0, now - self._at) / self._interval())

    def opens(self, now: float) -> float:
        """`now` if a retry may go, else when."""
        missing = 1.0 - self.left(now)
        return now if missing <= _ROUNDING else now + missing * self._interval()

    def take(self, now: float) -> None:
        """A retry goes."""
        self._left, self._at = max(0.0, self.left(now) - 1.0), now

    def give_back(self, now: float) -> None:
        """A retry did not go after all."""
        self._left, self._at = min(float(CAPACITY), self.left(now) + 1.0), now

    def answered(self) -> None:
        """The provider answered, whatever it said."""
        self._left, self._unanswered = float(CAPACITY), 0

    def failed(self, now: float) -> None:
        """A retry failed as transient."""
        self._left, self._at = self.left(now), now
        self._unanswered += 1

    def _interval(self) -> float:
        return min(_LONGEST_INTERVAL, _INTERVAL + _SLOWER * self._unanswered)

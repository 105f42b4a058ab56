"""The retry budget of one provider, as in gRPC and the AWS SDKs. Pure.

Retries after transient failures draw on it. First attempts do not, so the failures of one target never hold another.
"""

from __future__ import annotations

from math import inf
from typing import Final

CAPACITY: Final = 10
"""Retries that may go at once: enough for the few targets that one passing 503 hits."""
# Seconds per retry. The interval grows while the provider does not answer.
_INTERVAL: Final = 1.0
_LONGEST_INTERVAL: Final = 5.0  # after an outage, the first answer comes within 5 s and fills the budget
# Seconds by which each unanswered retry lengthens the interval: it is longest after 40 of them.
_SLOWER: Final = 0.1
# Sums of floats: a retry that is missing this little is available.
_ROUNDING: Final = 1e-9


class RetryBudget:
    """Ten retries at once, refilled one per second, slowing to one in five seconds. Any answer fills it."""

    __slots__ = ("_at", "_left", "_unanswered")

    def __init__(self) -> None:
        self._left = float(CAPACITY)
        self._at = -inf
        self._unanswered = 0

    def left(self, now: float) -> float:
        """Retries that may be sent at once."""
        return min(float(CAPACITY), self._left + max(0.0, now - self._at) / self._interval())

    def earliest(self, now: float) -> float:
        """When one more retry may go."""
        missing = 1.0 - self.left(now)
        return now if missing <= _ROUNDING else now + missing * self._interval()

    def take(self, now: float) -> None:
        """Count a retry as sent."""
        self._left, self._at = max(0.0, self.left(now) - 1.0), now

    def give_back(self, now: float) -> None:
        """Give a retry back that was not sent."""
        self._left, self._at = min(float(CAPACITY), self.left(now) + 1.0), now

    def answered(self) -> None:
        """Fill the budget: the provider answered."""
        self._left, self._unanswered = float(CAPACITY), 0

    def failed(self, now: float) -> None:
        """Slow the refill down: a retry failed with a transient failure."""
        self._left, self._at = self.left(now), now
        self._unanswered += 1

    def _interval(self) -> float:
        return min(_LONGEST_INTERVAL, _INTERVAL + _SLOWER * self._unanswered)

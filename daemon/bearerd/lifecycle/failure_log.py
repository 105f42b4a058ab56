"""What the log and `on_failure` tell of a target's failures: outcomes in, lines out. Pure.

The log tells of transitions: failing, still failing every ten minutes, recovered with counts. A provider that
answers, whatever its habits, never causes an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from bearerd.grant.outcome import Failure, Refused
from bearerd.lifecycle import policy
from bearerd.words import duration

STILL_FAILING: Final = 600.0
"""Seconds between two lines about one failure: often enough to be seen, seldom enough to be read."""
# A drawing does not tell more apart.
_MOST_MOMENTS: Final = 20

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    level: Level
    text: str


class FailureLog:
    """The failures of one target since its last success. All moments are those of the boot clock."""

    __slots__ = ("_announced", "_counts", "_expiry_logged", "_said_at", "attempts", "failure", "moments", "since")

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.since: float | None = None
        """When the first of them came."""
        self.moments: tuple[float, ...] = ()
        """When the last twenty came."""
        self.attempts = 0
        """How many attempts failed."""
        self._counts: Counter[type[Failure]] = Counter()
        self._said_at = 0.0
        self._announced = False
        self._expiry_logged = False

    def count(self, failure: Failure) -> int:
        """How many of them were of this kind, since what the target fails of was last mended."""
        return self._counts[type(failure)]

    def failed(self, failure: Failure, now: float) -> None:
        """Take note of a failed attempt; `describe` says it."""
        self._counts[type(failure)] += 1
        self.attempts += 1
        self.moments = (*self.moments, now)[-_MOST_MOMENTS:]
        if self.since is None:
            self.since = now

    def describe(self, failure: Failure, now: float, remaining: float, next_attempt: float) -> Line:
        """The line about a failed attempt: new, or of another kind, for everybody; else only for debugging.

        `remaining` is for how many seconds the present token is good.
        """
        known, self.failure = self.failure, failure
        # A refusal that promised another secret is not the last word.
        another = isinstance(known, Refused) and known.another_secret
        if type(failure) is type(known) and not another:
            return Line("debug", f"attempt failed: {failure}")
        return self._trouble(failure, now, remaining, next_attempt)

    def still_failing(self, now: float, remaining: float, next_attempt: float) -> Line | None:
        """The line that is due every ten minutes, also between attempts."""
        if self.failure is None or now < self._said_at + STILL_FAILING:
            return None
        return self._trouble(self.failure, now, remaining, next_attempt)

    def next_line(self) -> float | None:
        """When the next line is due without any attempt."""
        return None if self.failure is None else self._said_at + STILL_FAILING

    def succeeded(self, now: float) -> Line | None:
        """The provider answered with a token; a new one or the same."""
        line = None
        if self.failure is not None and self.since is not None:
            attempts = self.attempts
            line = Line(
                "info",
                f"recovered after {attempts} failed attempt{'' if attempts == 1 else 's'} "
                f"in {duration(now - self.since)}",
            )
        self.failure, self.since, self.moments, self.attempts = None, None, (), 0
        self._counts.clear()
        self._announced = False
        return line

    def forgive(self) -> None:
        """What the target failed of may be mended: its waits begin anew, what was said stays said."""
        self._counts.clear()

    def renewed(self) -> None:
        """There is a token that is good again."""
        self._expiry_logged = False

    def expired(self, *, removed: bool) -> Line | None:
        """The token is lost; `removed`: its files go."""
        if self._expiry_logged:
            return None
        self._expiry_logged = True
        files = "its files are removed" if removed else "its files hold the expired one"
        return Line("error", f"the token has expired and could not be renewed; {files}")

    @property
    def expiry_logged(self) -> bool:
        """Whether the log says that the token is lost."""
        return self._expiry_logged

    def is_lost(self, failure: Failure | None, count: int, now: float, remaining: float, *, expired: bool) -> bool:
        """Whether `on_failure` runs now: once for each trouble.

        `failure` and `count` are what the target, or its client, failed of and how often.
        """
        if self._announced:
            return False
        lasted = 0.0 if self.since is None else now - self.since
        self._announced = expired or (failure is not None and policy.is_lost(failure, count, remaining, lasted))
        return self._announced

    def _trouble(self, failure: Failure, now: float, remaining: float, next_attempt: float) -> Line:
        """What fails and why, what still holds, and when the next attempt is."""
        self._said_at = now
        holds = f"the present token is good for {duration(remaining)}" if remaining else "there is no valid token"
        lasted = 0.0 if self.since is None else now - self.since
        still = (
            f"still failing after {self.attempts} attempt{'' if self.attempts == 1 else 's'} in {duration(lasted)}: "
            if lasted > 0
            else ""
        )
        wait = next_attempt - now
        when = "now" if wait <= 0 else f"in {duration(wait)}" if wait < inf else "after a request in flight has ended"
        return Line("warning" if remaining else "error", f"{still}{failure}; {holds}; next attempt {when}")

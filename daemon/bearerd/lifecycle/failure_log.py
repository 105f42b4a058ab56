"""Log lines and `on_failure` for the failures of a target: outcomes in, lines out. Pure.

The log shows transitions: failing, still failing every ten minutes, recovered with counts. A provider that answers
never causes an ERROR, even if it returns the same token again.
"""

from __future__ import annotations

from math import inf
from typing import Final

from bearerd.grant.outcome import Failure, Refused
from bearerd.lifecycle import policy
from bearerd.lifecycle.lines import Line
from bearerd.plural import counted
from bearerd.timeformat import after, duration

STILL_FAILING: Final = 600.0
"""Seconds between two lines about one failure: rare enough not to flood the log, frequent enough to be seen."""
# `bearerd status` draws them in one line, which has room for no more.
_MOST_MOMENTS: Final = 20


class FailureLog:
    """The failures of one target since its last success. All times are those of the boot clock."""

    __slots__ = ("_announced", "_counts", "_expiry_logged", "_said_at", "attempts", "failure", "moments", "since")

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.since: float | None = None
        """The time of the first failure."""
        self.moments: tuple[float, ...] = ()
        """The times of the last twenty failures."""
        self.attempts = 0
        """The number of failed attempts."""
        self._counts: dict[type[Failure], int] = {}
        self._said_at = 0.0
        self._announced = False
        self._expiry_logged = False

    def count(self, failure: Failure) -> int:
        """The number of failures of this kind since `forgive`. It sets the backoff."""
        return self._counts.get(type(failure), 0)

    def failed(self, failure: Failure, now: float, of_fleet: int = 0) -> None:
        """Record a failed attempt; `describe` returns the line for it.

        `of_fleet`: how many attempts of the fleet failed in a row, this one included. If this daemon knows of a failure
        of another kind, they were not all of this kind.
        """
        alike = self.failure is None or type(self.failure) is type(failure)
        self._counts[type(failure)] = max(self.count(failure) + 1, of_fleet if alike else 0)
        self.attempts += 1
        self.moments = (*self.moments, now)[-_MOST_MOMENTS:]
        if self.since is None:
            self.since = now

    def describe(self, failure: Failure, now: float, remaining: float, next_attempt: float) -> Line:
        """The line for a failed attempt: a warning or error if the failure is new or of another kind, else debug.

        `remaining`: seconds until the current token expires, 0 without a token.
        """
        known, self.failure = self.failure, failure
        # After a refusal that announced another secret, the next refusal is news.
        another = isinstance(known, Refused) and known.another_secret
        if type(failure) is type(known) and not another:
            return Line("debug", f"attempt failed: {failure}")
        return self._failing(failure, now, remaining, next_attempt)

    def still_failing(self, now: float, remaining: float, next_attempt: float) -> Line | None:
        """The line that is due every ten minutes, even between attempts."""
        if self.failure is None or now < self._said_at + STILL_FAILING:
            return None
        return self._failing(self.failure, now, remaining, next_attempt)

    def next_line(self) -> float | None:
        """When the next line is due without an attempt."""
        return None if self.failure is None else self._said_at + STILL_FAILING

    def succeeded(self, now: float) -> Line | None:
        """Record a success, with a new token or the same. Returns the line about a recovery from failures."""
        line = None
        if self.failure is not None and self.since is not None:
            attempts = self.attempts
            line = Line(
                "info",
                f"recovered after {counted(attempts, 'failed attempt')} in {duration(now - self.since)}",
            )
        self.failure, self.since, self.moments, self.attempts = None, None, (), 0
        self._counts.clear()
        self._announced = False
        return line

    def forgive(self) -> None:
        """Restart the backoff, because the cause may be gone. Lines that were logged are not repeated."""
        self._counts.clear()

    def renewed(self) -> None:
        """Note that there is a valid token again."""
        self._expiry_logged = False

    def expired(self, why: str, wait: float, *, removed: bool) -> Line | None:
        """The line about an expired token, once.

        `why`: what prevented the renewal; `wait`: seconds to the next attempt; `removed`: its files are removed.
        """
        if self._expiry_logged:
            return None
        self._expiry_logged = True
        files = "its files are removed" if removed else "its files still contain the expired one"
        because = f": {why}" if why else ""
        return Line(
            "error", f"the token has expired and could not be refreshed{because}; {files}; next attempt {_after(wait)}"
        )

    @property
    def expiry_logged(self) -> bool:
        """Whether the expiry was logged."""
        return self._expiry_logged

    def is_lost(self, failure: Failure | None, count: int, now: float, remaining: float, *, expired: bool) -> bool:
        """Whether `on_failure` has to run now, once per lasting failure.

        `failure` and `count`: the last failure of the target or its client, and how often it occurred.
        """
        if self._announced:
            return False
        lasted = 0.0 if self.since is None else now - self.since
        self._announced = expired or (failure is not None and policy.is_lost(failure, count, remaining, lasted))
        return self._announced

    def _failing(self, failure: Failure, now: float, remaining: float, next_attempt: float) -> Line:
        """The line with the failure, the state of the current token, and the time of the next attempt."""
        self._said_at = now
        holds = f"the current token is good for {duration(remaining)}" if remaining else "there is no valid token"
        lasted = 0.0 if self.since is None else now - self.since
        still = f"still failing after {counted(self.attempts, 'attempt')} in {duration(lasted)}: " if lasted > 0 else ""
        when = _after(next_attempt - now)
        return Line("warning" if remaining else "error", f"{still}{failure}; {holds}; next attempt {when}")


def _after(wait: float) -> str:
    """When the next attempt is, in words."""
    return after(wait) if wait < inf else "when a request in flight has ended"

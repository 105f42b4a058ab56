"""When a target attempts next: when it is due, after a failure, on request, or one last time before expiry. Pure.

All times are those of the boot clock, in seconds.
"""

from __future__ import annotations

from math import inf

from bearerd.admission.types import Held
from bearerd.lifecycle import policy


class NextAttempt:
    """The time of the next attempt. `held`, in its methods, is the answer of admission if it holds the target."""

    __slots__ = ("_ended", "_last", "_last_held", "_last_made", "due", "not_before", "requested")

    def __init__(self) -> None:
        self.due = 0.0
        """When the next attempt is due."""
        self.not_before = 0.0
        """The end of the wait after the last outcome. Neither a clock step nor a refresh request shortens it."""
        self.requested = False
        """Whether a user requested a new token before it is due."""
        self._ended = -inf
        """When the last attempt ended."""
        self._last: float | None = None
        """The time of the last attempt before expiry; None if none is planned."""
        self._last_held = False
        """Whether admission holds even that attempt."""
        self._last_made = False
        """Whether that attempt was made, which happens once per token."""

    def at(self, held: Held | None) -> float:
        """When the target requests admission next."""
        if held is not None:
            return self.or_last(held.again, held)
        return self.or_last(min(self.due, self.not_before) if self.requested else self.due, None)

    def or_last(self, at: float, held: Held | None) -> float:
        """The earlier of this time and the last attempt before expiry."""
        if self._last is None or (held is not None and self._last_held):
            return at
        return min(at, self._last)

    def is_last(self, now: float) -> bool:
        """Whether an attempt now is the last one before expiry."""
        return self._last is not None and now >= self._last

    # -- what sets it ----------------------------------------------------------------------------

    def now(self, now: float) -> None:
        """Make an attempt due at once, because the cause of the last failure may be gone."""
        self.due = self.not_before = max(now, self._ended + policy.LEAST_BETWEEN_ATTEMPTS)

    def rescheduled(self, due: float) -> None:
        """Note that the refresh is due at another time."""
        self.due = max(due, self._ended + policy.LEAST_BETWEEN_ATTEMPTS)

    def begun(self, now: float) -> None:
        """Note that an attempt is being made."""
        self.requested = False
        if self.is_last(now):
            self._last, self._last_made = None, True

    def succeeded(self, now: float, due: float) -> None:
        """Note that a token arrived; its refresh is due at that time."""
        self._ended, self._last = now, None
        self.due, self.not_before = due, now + policy.LEAST_BETWEEN_ATTEMPTS

    def taken(self, now: float, due: float) -> None:
        """Note that there is a newer token, which another daemon obtained; its refresh is due at that time."""
        due = max(due, self._ended + policy.LEAST_BETWEEN_ATTEMPTS)
        self.extended()
        self.succeeded(now, due)
        self.requested = False

    def failed(self, now: float, wait: float) -> None:
        """Note that an attempt failed, and how many seconds the next one waits."""
        self._ended = now
        self.due = self.not_before = now + wait
        if self._last is not None:
            self._last = max(self._last, now + policy.LEAST_BETWEEN_ATTEMPTS)

    def held_back(self, now: float) -> None:
        """Note that admission holds the target."""
        self._last_held = self.is_last(now)

    def extended(self) -> None:
        """Note that there is a new token, or a new lifetime: it gets its own last attempt."""
        self._last, self._last_made = None, False

    def expired(self) -> None:
        """Note that there is no valid token, and so no attempt before its expiry."""
        self._last = None

    def may_plan_last(self) -> bool:
        """Whether an attempt before expiry is neither planned nor made."""
        return self._last is None and not self._last_made

    @property
    def untried(self) -> bool:
        """Whether no attempt was made yet."""
        return self._ended == -inf

    def has_last(self) -> bool:
        """Whether an attempt before expiry is planned."""
        return self._last is not None

    def plan_last(self, now: float, expires: float, dice: float) -> None:
        """Plan one more attempt before expiry, because the target is failing or held; or move the planned one."""
        self._last = policy.last_attempt(now, expires, dice)

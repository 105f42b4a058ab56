"""One target's steps with its fleet: looking for a newer token, claiming a grant, and reporting its outcome.

The fleet (share/fleet.py) talks to the server. This module knows the held token, and what a reply means for the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bearerd.admission.types import Ask
from bearerd.grant.outcome import Failure, Issued, Performed, Refused, Transient, Unsent
from bearerd.lifecycle import policy
from bearerd.lifecycle.held_token import HeldToken
from bearerd.lifecycle.parts import Fleet
from bearerd.lifecycle.token_state import Accepted
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share.answers import Claimed, Delayed, Lock, Taken, Wanted

NOT_SENT: Final = Unsent("another daemon of the fleet makes the request", phase="set-up")
"""The outcome that admission gets for an attempt that the fleet did not allow."""
_INTERRUPTED: Final = Transient("the attempt was interrupted by an error of bearerd", phase="wait")
# Seconds. A refused client is tried by one attempt at a time; one without an answer delays the next as a refusal does.
_UNCLEAR: Final = 30.0


class Shared:
    """The share of one target. Only its own turns call methods."""

    __slots__ = ("_changed_at", "fleet", "fleet_grants", "limited_until")

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.fleet_grants = 0
        """The number of grants of other daemons whose token or failure was taken over."""
        self.limited_until = 0.0
        """Until when a rate limit of the fleet holds requested refreshes back, as its last answer said."""
        self._changed_at: float | None = None
        """When the credentials or the config changed last. Boot clock, like all times here."""

    def changed(self, now: float) -> None:
        """Note that the credentials or the config changed."""
        self._changed_at = now
        self.limited_until = 0.0

    def taken(self) -> None:
        """Note that a token of another daemon was taken over."""
        self._changed_at = None
        self.fleet_grants += 1

    def look(self, target: Target, token: HeldToken, now: float) -> Taken | None:
        """The token of the fleet, if it is newer than the held one."""
        return self.fleet.look(target, self._have(target, token), lambda: _held(target, token, now))

    def claim(self, target: Target, token: HeldToken, ask: Ask, now: float) -> Claimed:
        """Claim the next grant."""
        remaining = token.state.remaining(now) if token.is_for(target) else 0.0
        changed = None if self._changed_at is None else now - self._changed_at
        requested = ask.requested and remaining > 0
        wanted = Wanted(self._have(target, token), remaining, ask.last_attempt, changed, requested)
        claimed = self.fleet.claim(target, wanted)
        if isinstance(claimed, Delayed) and claimed.reason == "rate_limit":
            self.limited_until = now + claimed.wait
        return claimed

    def issued(
        self, target: Target, token: HeldToken, lock: Lock | None, accepted: Accepted, performed: Performed, now: float
    ) -> tuple[int, Taken | None]:
        """Give a token from a reply to the fleet. Returns its fence, and the newer token that the fleet has, if any."""
        have, before, after = self._have(target, token), token.state, accepted.state
        self._changed_at = None
        known = (after.token, after.sliding, after.named) == (before.token, before.sliding, before.named)
        if after.token is None or (known and token.is_for(target)):
            if lock is not None:
                self.fleet.keep(target, lock, accepted.due - now)
            return have, None
        fence = lock.fence if lock is not None else self.fleet.own_fence(target, have, after.token.obtained.wall)
        if lock is None:
            return fence, None  # it is stored when the server can be used
        if performed.client_id != lock.client_id:  # it changed meanwhile, so this is another fleet's token
            self.fleet.give_back(target, lock)
            return fence, None
        nbf = performed.outcome.nbf if isinstance(performed.outcome, Issued) else 0.0
        record = Record(
            after.token,
            target.identity(),
            lock.client_id,
            named=after.named,
            sliding=after.sliding,
            not_before=now + nbf - after.token.obtained.boot if nbf else 0.0,
            fence=fence,
        )
        next_due = accepted.due if accepted.kind == "same" else 0.0
        return fence, self.fleet.store(target, record, after.remaining(now), next_due=next_due)

    def failed(self, target: Target, lock: Lock, failure: Failure, wait: float, *, whole_client: bool) -> None:
        """Report a failure to the fleet, which then waits for `wait` seconds."""
        if isinstance(failure, Unsent):  # its secret, for example: another daemon may succeed
            self.fleet.give_back(target, lock)
            return
        refused = isinstance(failure, Refused)
        if refused:
            self._changed_at = None  # the changed credentials are refused, too
        if lock.governed and failure.reached_the_endpoint and not refused:
            refused, whole_client, wait = True, lock.refusals > 0, max(wait, _UNCLEAR)
        self.fleet.fail(target, lock, failure, wait, whole_client=whole_client, refused=refused)

    def interrupted(self, target: Target, lock: Lock) -> None:
        """Report an attempt that ended in an exception to the fleet. Its request may have been sent."""
        wait = policy.LEAST_BETWEEN_ATTEMPTS
        self.fleet.fail(target, lock, _INTERRUPTED, wait, whole_client=False, refused=lock.governed)

    def _have(self, target: Target, token: HeldToken) -> int:
        """The fence of the held token, which gets one if it was obtained before it was shared."""
        if not token.is_for(target) or token.state.token is None:
            return 0
        if not token.fence:
            token.fence = self.fleet.own_fence(target, 0, token.state.token.obtained.wall)
        return token.fence


def _held(target: Target, token: HeldToken, now: float) -> tuple[Record, float] | None:
    record, remaining = token.record(target), token.state.remaining(now)
    return None if record is None or remaining <= 0 else (replace(record, present=None), remaining)

"""The attempts of other daemons, as one target goes on after them: with their token, or after their failure."""

from __future__ import annotations

from dataclasses import replace

from bearerd.admission.types import Ticket
from bearerd.grant.outcome import Refused
from bearerd.lifecycle import policy
from bearerd.lifecycle.lines import taken_line
from bearerd.lifecycle.shared import NOT_SENT
from bearerd.lifecycle.standing import Standing, share_of
from bearerd.model import Target
from bearerd.share.answers import FleetFailure, Taken
from bearerd.terms import LATELY


class FleetAttempts(Standing):
    """The attempts of other daemons for one target. Without a share, there are none."""

    __slots__ = ()

    def look(self) -> bool:
        """Take a newer token from the fleet. Returns whether there was one."""
        if self._shared is None:
            return False
        taken = self._shared.look(self.target, self.token, self._parts.clock.now().boot)
        if taken is None or not self._take_from_fleet(taken):
            return False
        self.held = None
        self.next = self._next(self._parts.clock.now().boot)
        return True

    def _take_from_fleet(self, taken: Taken) -> bool:
        """Hold a token that another daemon obtained. Returns False if it has expired by this machine's clocks."""
        parts, target, shared, now = self._parts, self.target, self._shared, self._parts.clock.now()
        if shared is None:
            return False
        token = taken.record.token
        off = abs((token.expires.wall - now.wall) - (token.expires.boot - now.boot))
        dated = self.token.adopt(taken.record, target, now)
        if (dated is None or dated.disagreed) and off > policy.CLOCKS_DISAGREE:
            shared.fleet.clocks_differ(target, off)
        if dated is None:
            shared.fleet.pass_over(target, taken.record.fence)
            return False
        shared.taken()
        if taken.next_due > now.boot:
            self.token.expected(now.boot)  # its provider has just returned it again
        parts.admission.worked(target.client.name)
        parts.admission.cancel(target.full_name, target.client.name, now.boot)
        if now.boot - dated.token.obtained.boot <= LATELY:
            parts.admission.fleet_issued(target.full_name, target.client.name, now.boot)
        remaining = self.state.remaining(now.boot)
        due = self._refresh_due(dated.token, now.boot - policy.LEAST_BETWEEN_ATTEMPTS)
        # By this machine's clocks the token may end before the other daemon asks about it.
        due = max(due, min(taken.next_due, self.state.ends), now.boot)
        self._timing.taken(now.boot, due if remaining >= parts.min_valid else now.boot)
        self.same = False
        self._recovered(remaining, now.boot)
        self.say(taken_line(remaining, self.due - now.boot, self.publish_in(now.boot)))
        return True

    def _fleet_failed(self, failing: FleetFailure, ticket: Ticket, now: float) -> None:
        """Go on as after a failure of one's own: another daemon made the attempt."""
        failure, target = failing.failure, self.target
        if isinstance(failure, Refused):
            failure = replace(failure, request=target.fingerprint())
            self._parts.admission.fleet_refused(
                target.full_name, target.client.name, failure, failing.count, failing.wait, now
            )
        self._parts.admission.settle(ticket, NOT_SENT, now)
        self._timing.begun(now)
        self._timing.failed(
            now, max(policy.LEAST_BETWEEN_ATTEMPTS, 0.0 if isinstance(failure, Refused) else failing.wait)
        )
        self._plan_last(now)
        if failing.new and self._shared is not None:
            self._shared.fleet_grants += 1
            self.log.failed(failure, now, failing.count)
            remaining = self.state.remaining(now)
            self.say(self.log.describe(failure, now, remaining, self._or_last(now + failing.wait)))

    def _change_share(self, old: Target, now: float) -> None:
        """Share with the fleet of the changed config, if there is one."""
        target = self.target
        if old.client.share != target.client.share:
            if self._shared is not None:
                self._shared.fleet.forget(old)
            self._shared = share_of(target, self._parts)
        if self._shared is not None and old.client != target.client:
            self._shared.changed(now)

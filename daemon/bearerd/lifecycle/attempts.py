"""The attempts of one target: its held token, its failures since the last success, and its next attempt.

A due target requests admission. When that is granted, it performs a grant, compares the reply with the held token, and
sets the time of the next attempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

from bearerd.admission.types import Ask, Held, Settled, Ticket
from bearerd.errors import Stopping
from bearerd.grant.outcome import KINDS, Failure, Issued, Performed, Refused, Unsent
from bearerd.lifecycle import policy
from bearerd.lifecycle.fleet_attempts import FleetAttempts
from bearerd.lifecycle.lines import Line, nbf_line, reply_line, resumed_line
from bearerd.lifecycle.plan import needs_grant
from bearerd.lifecycle.shared import NOT_SENT
from bearerd.lifecycle.token_state import Accepted, TokenState, accept, next_check
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share.answers import Alone, Claimed, Delayed, FleetFailure, Lock, Taken
from bearerd.terms import Instant, Token
from bearerd.timeformat import duration

_KINDS: Final = tuple(KINDS)


class Attempts(FleetAttempts):
    """The attempts of one target. One thread at a time may call methods; any thread may read attributes."""

    __slots__ = ()

    # -- events between two turns ----------------------------------------------------------------

    def resume(self, record: Record | None, client_id: str | None) -> bool:
        """Take the token from the record if it belongs to this target. Returns whether its times had to be corrected.

        An expired record serves only to recognise the same token in a later reply.
        """
        now = self._parts.clock.now()
        self._timing.due = now.boot + policy.first_attempt(0.0, self._parts.spread(), self._parts.dice())
        target = self.target
        refusal = self.refusal()
        if refusal is not None and refusal.request not in {"", target.fingerprint()}:
            self._request_changed(now.boot)
        if record is None or record.identity != target.identity() or client_id not in (None, record.client_id):
            return False
        self._parts.admission.worked(target.client.name)
        dated = self.token.resume(record, target, now)
        if self.state.stale:
            return False
        remaining = self.state.remaining(now.boot)
        due = now.boot
        if not dated.disagreed and remaining >= self._parts.min_valid:
            due = max(now.boot, self._held_due(dated.token, now.boot))
        if due == now.boot:
            due += policy.first_attempt(remaining, self._parts.spread(), self._parts.dice())
        self._timing.due = due
        self.say(resumed_line(remaining, self.publish_in(now.boot)))
        return dated.stepped

    def adopt(self, target: Target) -> None:
        """Apply a changed config. A target that needs another token, or is failing, requests one at once.

        After an exception the old config applies, and a second call applies the new one.
        """
        old, shared = self.target, self._shared
        self.target = target
        try:
            self._adopted(old)
        except BaseException:
            self.target, self._shared = old, shared
            raise

    def _adopted(self, old: Target) -> None:
        """Go on after a changed config."""
        target, now = self.target, self._parts.clock.now().boot
        self._change_share(old, now)
        self.token.shorten(target.publish_delay)
        other_token = needs_grant(old, target)
        if other_token:
            self._parts.admission.forget(target.full_name, old.client.name, now)
        # All refusals of a changed client are forgotten anyway (service/engine.py).
        if old.client == target.client and old.fingerprint() != target.fingerprint():
            self._request_changed(now)
        token = self.state.current
        if other_token or self.log.failure is not None or (token is not None and not self.token.is_for(target)):
            self._due_now(now)
        elif self._is_spread(now):
            self._timing.now(now)
        elif token is not None and _schedule(old) != _schedule(target):
            self._timing.rescheduled(max(now, self._held_due(token, now)))

    def withdraw(self) -> None:
        """Let admission and the fleet forget the target, because it is no longer wanted."""
        if self._shared is not None:
            self._shared.fleet.forget(self.target)
        now = self._parts.clock.now().boot
        self._parts.admission.forget(self.target.full_name, self.target.client.name, now)

    def _request_changed(self, now: float) -> None:
        """Forget the refusal: it was about another request, so the target may ask at once."""
        refusal, target = self.refusal(), self.target
        if refusal is not None and not refusal.own:
            self._parts.admission.forgive(target.client.name, now)
        else:
            self._parts.admission.forget(target.full_name, target.client.name, now)

    def credentials_changed(self) -> None:
        """Retry at once if the target is failing or held for any reason, because the client's credentials changed."""
        now = self._parts.clock.now().boot
        if self._shared is not None:
            self._shared.changed(now)
        if self.log.failure is not None or self.held is not None:
            self._parts.clients.credentials_changed(self.target)
        if self.log.failure is not None:
            self._due_now(now)
        elif self._is_spread(now):
            self._timing.now(now)

    def _is_spread(self, now: float) -> bool:
        """Whether the first attempt since the start is only delayed by `startup_spread`."""
        token = self.state.current
        return (
            self._timing.untried and self._timing.due > now and (token is None or self._refresh_due(token, now) <= now)
        )

    def request(self, instead_of: str | None) -> None:
        """Request a new token, unless there is a newer one. If that is waiting, publish it as soon as it is valid."""
        if instead_of is not None:
            self.token.doubt(instead_of)
        if self.token.replaces(instead_of):
            return
        self._timing.requested = self._timing.requested or not self.is_newer(instead_of)

    def correct_times(self, now: Instant) -> bool:
        """Correct the token's times after a step of the wall clock. Returns whether there was one."""
        dated = self.token.redate(now)
        if dated is None:
            return False
        if self._timing.has_last():
            self._timing.plan_last(now.boot, self.state.ends, self._parts.dice())
        if dated.disagreed:
            self._timing.due = max(now.boot, self._timing.not_before)
        good = duration(self.state.remaining(now.boot))
        refreshing = "; refreshing it" if dated.disagreed else ""
        self.say(
            Line(
                "warning",
                f"the clock was set: by the earlier of two expiry times, the token is good for {good}{refreshing}",
            )
        )
        return True

    # -- an attempt ------------------------------------------------------------------------------

    def run(self) -> None:
        """Request admission if an attempt is due, and perform the grant if admission and the fleet allow it."""
        self.held = None
        self.look()
        now = self._parts.clock.now()
        if not self.state.remaining(now.boot):
            self._timing.expired()
        if now.boot >= self.next_turn():
            self.held = self._ask(now)
        self.next = self._next(self._parts.clock.now().boot)

    def _ask(self, now: Instant) -> Held | None:
        """Make an attempt. Returns what holds the target if admission or the fleet does not allow it."""
        parts, ask = self._parts, self.ask(now.boot, requested=self._timing.requested)
        answer = parts.admission.request(ask, now.boot)
        if isinstance(answer, Held):
            return self._hold(ask, answer, now.boot)
        if self._shared is None:
            self._attempt(answer.ticket, None, now)
            return None
        claimed: Claimed | None = None
        try:
            claimed = self._shared.claim(self.target, self.token, ask, now.boot)
        finally:
            now = parts.clock.now()
            if not isinstance(claimed, Lock | Alone | FleetFailure):
                parts.admission.settle(answer.ticket, NOT_SENT, now.boot)
        match claimed:
            case Lock():
                self._attempt(answer.ticket, claimed, now)
            case Alone():
                self._attempt(answer.ticket, None, now)
            case FleetFailure():
                self._fleet_failed(claimed, answer.ticket, now.boot)
            case Taken():
                if not self._take_from_fleet(claimed):
                    self._timing.failed(now.boot, policy.LEAST_BETWEEN_ATTEMPTS)
            case Delayed(reason=reason, wait=wait):
                if reason == "share":
                    self.token.expected(now.boot)
                return self._hold(ask, Held(now.boot + wait, reason, now.boot + wait), now.boot)
            case _:
                assert_never(claimed)
        return None

    def _hold(self, ask: Ask, held: Held, now: float) -> Held | None:
        """Be held, until the last attempt before expiry at most."""
        if ask.requested and held.reason == "rate_limit":
            self._timing.requested = False  # the rest of the limit is reserved for refreshes that are due
            return None
        self._timing.held_back(now)
        self._plan_last(now)
        if held.reason == "share_unavailable":
            # The last attempt may have been made already, and returned the same token.
            last = self._timing.or_last(self.state.ends - policy.LATEST_LAST_ATTEMPT, None)
            until = max(now, min(held.until, last))
            return Held(until, held.reason, until)
        return held

    def _attempt(self, ticket: Ticket, lock: Lock | None, now: Instant) -> None:
        """Perform a grant, and go on by its outcome. `lock`: that of the fleet."""
        parts, shared = self._parts, self._shared
        self._timing.begun(now.boot)
        self.next = now.boot
        performed = self._perform(ticket, lock)
        outcome = performed.outcome
        accepted: Accepted | None = None
        try:
            now = parts.clock.now()
            if isinstance(outcome, Issued):
                accepted = self._judge(outcome, performed, now)
                if accepted.failure is not None:
                    outcome = accepted.failure
            elif isinstance(outcome, Refused):
                outcome = replace(outcome, request=self.target.fingerprint(), before=_before(outcome, lock))
        finally:
            # Even after an exception the slot must be given back.
            settled = parts.admission.settle(ticket, outcome, parts.clock.now().boot)
        first = self.state.current is None
        newer: Taken | None = None
        if accepted is not None:
            fence = self.token.fence
            if shared is not None and accepted.failure is None:
                fence, newer = shared.issued(self.target, self.token, lock, accepted, performed, now.boot)
            elif accepted.kind in {"new", "renewed"}:
                fence = 0
            if newer is None or not self._take_from_fleet(newer):
                newer = None
                self._take(accepted, performed, now.boot, fence)
        if isinstance(outcome, Failure):
            self._fail(outcome, settled, now.boot, lock)
        elif accepted is not None and newer is None:
            self._succeed(accepted, outcome.notes if first else (), now)
        parts.counted(self.target, performed if outcome is performed.outcome else replace(performed, outcome=outcome))
        # Counted last: a thread that waits for the next grant then also sees its result.
        self._outcomes[_KINDS.index(type(outcome))] += 1

    def _perform(self, ticket: Ticket, lock: Lock | None) -> Performed:
        """Perform a grant. After an exception the slot and the lock are given back."""
        parts, shared = self._parts, self._shared
        try:
            return parts.grants.perform(self.target)
        except BaseException as error:
            unsent = Unsent(str(error), phase="secret") if isinstance(error, Stopping) else None
            parts.admission.settle(ticket, unsent, parts.clock.now().boot)
            if lock is not None and shared is not None:
                if unsent is not None:
                    shared.failed(self.target, lock, unsent, 0.0, whole_client=False)
                else:
                    shared.interrupted(self.target, lock)
            raise

    def _judge(self, issued: Issued, performed: Performed, now: Instant) -> Accepted:
        """Compare the reply with the held token, if that is the one that the current config wants."""
        state = self.state if self.token.is_for(self.target) else TokenState(arrived_expired=self.state.arrived_expired)
        return accept(state, issued, now, lambda token: self._refresh_due(token, now.boot), performed.skew)

    def _take(self, accepted: Accepted, performed: Performed, now: float, fence: int) -> None:
        """Store the state after a reply."""
        nbf = performed.outcome.nbf if isinstance(performed.outcome, Issued) else 0.0
        self.token.take(accepted, self.target, performed.client_id, nbf, now, fence)
        if accepted.kind in {"new", "renewed"}:
            self._timing.extended()
        if accepted.kind == "new" and (line := nbf_line(nbf, self.publish_in(now))) is not None:
            self.say(line)

    def _succeed(self, accepted: Accepted, notes: Iterable[str], now: Instant) -> None:
        remaining = self.state.remaining(now.boot)
        self._timing.succeeded(now.boot, accepted.due)
        self.same = accepted.kind != "new"
        for note in notes:
            self.say(Line("warning", note))
        self._recovered(remaining, now.boot)
        line = reply_line(accepted.kind, remaining, self.due - now.boot, self.publish_in(now.boot))
        if line is not None:
            self.say(line)

    def _fail(self, failure: Failure, settled: Settled, now: float, lock: Lock | None) -> None:
        """Record a failure, tell the fleet of it, and set the time of the next attempt."""
        self.log.failed(failure, now, lock.failures + 1 if lock is not None else 0)
        remaining = self.state.remaining(now)
        if isinstance(failure, Refused):
            # It requests admission right away and is held there, so that a sibling's success wakes it.
            wait = policy.LEAST_BETWEEN_ATTEMPTS
        else:
            wait = policy.wait_after(failure, self.log.count(failure), remaining, self._parts.dice())
        self._timing.failed(now, wait)
        until = max(settled.until, now + wait) if isinstance(failure, Refused) else now + wait
        if lock is not None and self._shared is not None:
            refusal = self.refusal()
            whole_client = isinstance(failure, Refused) and (
                failure.whole_client if refusal is None else not refusal.own
            )
            waits = max(wait, settled.of_client - now)
            self._shared.failed(self.target, lock, failure, waits, whole_client=whole_client)
        self._plan_last(now)
        self.say(self.log.describe(failure, now, remaining, self._or_last(until)))

    def _held_due(self, token: Token, now: float) -> float:
        """When the held token is due: for its refresh, or for a reply that has to confirm its lifetime."""
        refresh_due = self._refresh_due(token, now - policy.LEAST_BETWEEN_ATTEMPTS)
        return min(refresh_due, next_check(self.state, now))

    def _due_now(self, now: float) -> None:
        """Make an attempt due now, because the cause of the last failure may be gone."""
        self._timing.now(now)
        self.log.forgive()


def _before(outcome: Refused, lock: Lock | None) -> int:
    """Refusals by the whole fleet before this one."""
    if lock is None:
        return 0
    return lock.refusals if outcome.whole_client else lock.failures


def _schedule(target: Target) -> tuple[object, ...]:
    """The settings of a target that decide when its token is refreshed."""
    return target.refresh_before, target.least_lead, target.max_age

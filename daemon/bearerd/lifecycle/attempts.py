"""The attempts of one target: its held token, its failures since the last success, and its next attempt.

A due target requests admission. When that is granted, it performs a grant, compares the reply with the held token, and
sets the time of the next attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import Final

from bearerd.admission.types import Ask, Held, Refusal, Settled
from bearerd.grant.outcome import KINDS, Failure, Issued, Outcome, Performed, RateLimited, Refused, Transient
from bearerd.lifecycle import policy
from bearerd.lifecycle.failure_log import FailureLog
from bearerd.lifecycle.held_token import HeldToken
from bearerd.lifecycle.lines import Line, nbf_line, reply_line, resumed_line
from bearerd.lifecycle.next_attempt import NextAttempt
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.token_state import Accepted, TokenState, accept
from bearerd.log import say
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.target_status import HELD, Hold
from bearerd.terms import Instant, Token
from bearerd.timeformat import duration

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_KINDS: Final = tuple(KINDS)


class Attempts:
    """The attempts of one target. One thread at a time may call methods; any thread may read attributes."""

    # Without slots, the dicts of 10,000 instances would take 20 MB.
    __slots__ = (
        "_outcomes", "_parts", "_timing", "held", "log", "next", "same", "target", "token",
    )  # fmt: skip

    def __init__(self, target: Target, parts: Parts) -> None:
        self.target = target
        self._parts = parts
        self.token = HeldToken()
        self.log = FailureLog()
        self._timing = NextAttempt()
        self.held: Held | None = None
        """The answer of admission if it holds the target."""
        self.next = 0.0
        """The time of the next attempt, as far as it is known. Boot clock, like all times here."""
        self.same = False
        """Whether the last reply contained the token that was already held."""
        self._outcomes = [0] * len(KINDS)

    # -- events between two turns ----------------------------------------------------------------

    def resume(self, record: Record | None, client_id: str | None) -> bool:
        """Take the token from the record if it belongs to this target. Returns whether its times had to be corrected.

        An expired record serves only to recognise the same token in a later reply.
        """
        now = self._parts.clock.now()
        self._timing.due = now.boot
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
        if not dated.disagreed and remaining >= self._parts.min_valid:
            self._timing.due = max(now.boot, self._refresh_due(dated.token, now.boot - policy.LEAST_BETWEEN_ATTEMPTS))
        self.say(resumed_line(remaining, self.publish_in(now.boot)))
        return dated.stepped

    def adopt(self, target: Target) -> None:
        """Apply a changed config. A target that needs another token, or is failing, requests one at once."""
        old, self.target = self.target, target
        now = self._parts.clock.now().boot
        self.token.shorten(target.publish_delay)
        needs_grant = old.identity() != target.identity() or old.client.client_id != target.client.client_id
        if needs_grant:
            self._parts.admission.forget(target.full_name, old.client.name, now)
        # All refusals of a changed client are forgotten anyway (service/engine.py).
        if old.client == target.client and old.fingerprint() != target.fingerprint():
            self._request_changed(now)
        token = self.state.current
        if needs_grant or self.log.failure is not None or (token is not None and not self.token.is_for(target)):
            self._due_now(now)
        elif token is not None and _schedule(old) != _schedule(target):
            self._timing.rescheduled(max(now, self._refresh_due(token, now - policy.LEAST_BETWEEN_ATTEMPTS)))

    def _request_changed(self, now: float) -> None:
        """Forget the refusal: it was about another request, so the target may ask at once."""
        refusal, target = self.refusal(), self.target
        if refusal is not None and not refusal.own:
            self._parts.admission.forgive(target.client.name, now)
        else:
            self._parts.admission.forget(target.full_name, target.client.name, now)

    def credentials_changed(self) -> None:
        """Retry at once if the target is failing or held for any reason, because the client's credentials changed."""
        if self.log.failure is not None or self.held is not None:
            self._parts.clients.credentials_changed(self.target)
        if self.log.failure is not None:
            self._due_now(self._parts.clock.now().boot)

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

    # -- state -----------------------------------------------------------------------------------

    @property
    def state(self) -> TokenState:
        """The newest token."""
        return self.token.state

    @property
    def record(self) -> Record | None:
        """The record of the held token; None without one that the current config wants."""
        return self.token.record(self.target)

    def publish_in(self, now: float) -> float:
        """Seconds until the newest token is published; 0 if it is not waiting for that."""
        waiting = self.token.waiting
        return 0.0 if waiting is None else max(0.0, waiting.at - now)

    @property
    def outcomes(self) -> tuple[int, ...]:
        """The number of grants by kind of outcome, in the order of `KINDS`."""
        return tuple(self._outcomes)

    def is_newer(self, instead_of: str | None) -> bool:
        """Whether the token in the files is valid and differs from the one with this digest."""
        return self.token.is_newer(instead_of, self._parts.clock.now().boot)

    def ask(self, now: float, *, requested: bool = False) -> Ask:
        """The request to admission at this time."""
        target, token = self.target, self.state.current
        lifetime = token.lifetime if token else 0.0
        return Ask(
            name=target.full_name,
            client=target.client.name,
            expires=self.state.ends if token else None,
            lifetime=lifetime,
            period=policy.planned(lifetime, target.refresh_before, target.least_lead, target.max_age),
            failures=self.log.attempts,
            retry=isinstance(self.log.failure, Transient),
            last_attempt=self._timing.is_last(now),
            requested=requested and now < self._timing.due,
        )

    def refusal(self) -> Refusal | None:
        """The refusal that holds the target, its own or its client's; None if it is not refused."""
        return self._parts.admission.refusal(self.target.full_name, self.target.client.name)

    def current_hold(self) -> Held | None:
        """What holds the target now. It may have changed since the last request, without a turn of this target."""
        held = self.held
        if held is None or held.until < inf:
            return held
        now = self._parts.clock.now().boot
        return self._parts.admission.preview(self.ask(now, requested=self._timing.requested), now) or held

    def hindrance(self) -> str:
        """What prevents a new token, in words: the hold and the last failure; empty if neither is known."""
        held, failure = self.current_hold(), self.log.failure
        return ": ".join([*([HELD[held.reason]] if held is not None else []), *([str(failure)] if failure else [])])

    def refresh_hold(self) -> Hold | None:
        """What would delay a refresh requested now: admission, or the wait after the last failure."""
        now = self._parts.clock.now().boot
        held, failure = self._parts.admission.preview(self.ask(now, requested=True), now), self.log.failure
        not_before = self._timing.not_before
        if failure is not None and not_before > max(now, held.until if held is not None else now):
            asked = isinstance(failure, Transient | RateLimited) and failure.retry_after is not None
            return Hold("retry_after" if asked else "backoff", self._or_last(not_before), failure)
        if held is None:
            return None
        refusal = self.refusal() if held.reason in {"refused", "refused_limit"} else None
        until = self._or_last(held.until) if held.until < inf else inf
        return Hold(held.reason, until, failure or (refusal.outcome if refusal else None))

    @property
    def due(self) -> float:
        """When the next attempt is due, whatever holds it."""
        return self._timing.due

    def next_turn(self) -> float:
        """When the target requests admission next."""
        return self._timing.at(self.held)

    def _or_last(self, at: float) -> float:
        return self._timing.or_last(at, self.held)

    # -- an attempt ------------------------------------------------------------------------------

    def run(self) -> None:
        """Request admission if an attempt is due, and perform the grant if admission allows it."""
        now = self._parts.clock.now()
        self.held = None
        if not self.state.remaining(now.boot):
            self._timing.expired()
        if now.boot >= self.next_turn():
            self.held = self._ask(now)
        self.next = self._next(self._parts.clock.now().boot)

    def _ask(self, now: Instant) -> Held | None:
        """Make an attempt. Returns what holds the target if admission does not allow it."""
        parts, ask = self._parts, self.ask(now.boot, requested=self._timing.requested)
        answer = parts.admission.request(ask, now.boot)
        if isinstance(answer, Held):
            if ask.requested and answer.reason == "rate_limit":
                self._timing.requested = False  # the rest of the limit is reserved for refreshes that are due
                return None
            self._timing.held_back(now.boot)
            self._plan_last(now.boot)
            return answer
        self._timing.begun(now.boot)
        self.next = now.boot
        outcome: Outcome | None = None
        accepted: Accepted | None = None
        try:
            performed = parts.grants.perform(self.target)
            outcome = performed.outcome
            now = parts.clock.now()
            if isinstance(outcome, Issued):
                accepted = self._judge(outcome, performed, now)
                if accepted.failure is not None:
                    outcome = accepted.failure
            elif isinstance(outcome, Refused):
                outcome = replace(outcome, request=self.target.fingerprint())
        finally:
            # Even after an exception the slot must be given back.
            settled = parts.admission.settle(answer.ticket, outcome, parts.clock.now().boot)
        first = self.state.current is None
        if accepted is not None:
            self._take(accepted, performed, now.boot)
        if isinstance(outcome, Failure):
            self._fail(outcome, settled, now.boot)
        elif accepted is not None:
            self._succeed(accepted, outcome.notes if first else (), now)
        parts.counted(self.target, performed if outcome is performed.outcome else replace(performed, outcome=outcome))
        # Counted last: a thread that waits for the next grant then also sees its result.
        self._outcomes[_KINDS.index(type(outcome))] += 1
        return None

    def _judge(self, issued: Issued, performed: Performed, now: Instant) -> Accepted:
        """Compare the reply with the held token, if that is the one that the current config wants."""
        state = self.state if self.token.is_for(self.target) else TokenState(arrived_expired=self.state.arrived_expired)
        return accept(state, issued, now, lambda token: self._refresh_due(token, now.boot), performed.skew)

    def _take(self, accepted: Accepted, performed: Performed, now: float) -> None:
        """Store the state after a reply."""
        nbf = performed.outcome.nbf if isinstance(performed.outcome, Issued) else 0.0
        self.token.take(accepted, self.target, performed.client_id, nbf, now)
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
        if remaining:
            self.log.renewed()
        if (recovered := self.log.succeeded(now.boot)) is not None:
            self.say(recovered)
        line = reply_line(accepted.kind, remaining, self.due - now.boot, self.publish_in(now.boot))
        if line is not None:
            self.say(line)

    def _fail(self, failure: Failure, settled: Settled, now: float) -> None:
        """Record a failure, and set the time of the next attempt."""
        self.log.failed(failure, now)
        remaining = self.state.remaining(now)
        if isinstance(failure, Refused):
            # It requests admission right away and is held there, so that a sibling's success wakes it.
            wait = policy.LEAST_BETWEEN_ATTEMPTS
        else:
            wait = policy.wait_after(failure, self.log.count(failure), remaining, self._parts.dice())
        self._timing.failed(now, wait)
        until = max(settled.until, now + wait) if isinstance(failure, Refused) else now + wait
        self._plan_last(now)
        self.say(self.log.describe(failure, now, remaining, self._or_last(until)))

    def _next(self, now: float) -> float:
        """The time of the next attempt, as far as it is known."""
        if self.held is not None:
            at = self.held.until
        else:
            at = self.next_turn()
            refusal = self.refusal() if isinstance(self.log.failure, Refused) else None
            if refusal is not None and at <= now + policy.LEAST_BETWEEN_ATTEMPTS:
                at = max(at, refusal.next_probe)  # admission will hold it until then
        return self._or_last(at)

    def _plan_last(self, now: float) -> None:
        if self._timing.may_plan_last() and self.state.remaining(now):
            self._timing.plan_last(now, self.state.ends, self._parts.dice())

    def _refresh_due(self, token: Token, last_attempt: float) -> float:
        target = self.target
        return policy.due_after_issue(
            token, target.refresh_before, target.least_lead, last_attempt, self._parts.dice(), target.max_age
        )

    def _due_now(self, now: float) -> None:
        """Make an attempt due now, because the cause of the last failure may be gone."""
        self._timing.now(now)
        self.log.forgive()

    def say(self, line: Line) -> None:
        """Write one log line."""
        say(_LEVELS[line.level], line.text, name=self.target.full_name)


def _schedule(target: Target) -> tuple[object, ...]:
    """The settings of a target that decide when its token is refreshed."""
    return target.refresh_before, target.least_lead, target.max_age

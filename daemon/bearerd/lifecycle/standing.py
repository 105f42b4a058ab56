"""The state of one target: its token, its failures since the last success, its next attempt, and the hold on it."""

from __future__ import annotations

import logging
from math import inf
from typing import Final

from bearerd.admission.types import Ask, Held, Refusal
from bearerd.grant.outcome import KINDS, RateLimited, Refused, Transient
from bearerd.lifecycle import policy
from bearerd.lifecycle.failure_log import FailureLog
from bearerd.lifecycle.held_token import HeldToken
from bearerd.lifecycle.lines import Line
from bearerd.lifecycle.next_attempt import NextAttempt
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.shared import Shared
from bearerd.lifecycle.token_state import TokenState
from bearerd.log import say
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.target_status import HELD, Hold
from bearerd.terms import Token

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Standing:
    """The state of one target. Any thread may read it. Attempts (attempts.py) change it."""

    # Without slots, the dicts of 10,000 instances would take 20 MB.
    __slots__ = (
        "_outcomes", "_parts", "_shared", "_timing", "held", "log", "next", "same", "target", "token",
    )  # fmt: skip

    def __init__(self, target: Target, parts: Parts) -> None:
        self.target = target
        self._parts = parts
        self._shared = share_of(target, parts)
        self.token = HeldToken()
        self.log = FailureLog()
        self._timing = NextAttempt()
        self.held: Held | None = None
        """What holds the target: the answer of admission, or of its fleet."""
        self.next = 0.0
        """The time of the next attempt, as far as it is known. Boot clock, like all times here."""
        self.same = False
        """Whether the last reply contained the token that was already held."""
        self._outcomes = [0] * len(KINDS)

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

    @property
    def fleet_grants(self) -> int:
        """The number of grants of other daemons whose token or failure was taken over."""
        return 0 if self._shared is None else self._shared.fleet_grants

    @property
    def limited_until(self) -> float:
        """Until when a rate limit of the fleet holds requested refreshes back; in the past if it does not."""
        return 0.0 if self._shared is None else self._shared.limited_until

    def is_newer(self, instead_of: str | None) -> bool:
        """Whether the token for the files is valid and differs from the one with this digest."""
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
        if held is None and self.held is not None and self.held.reason in {"share", "share_unavailable"}:
            held = self.held if self.held.until > now else None
        if held is None and (limited := self.limited_until) > now:
            held = Held(limited, "rate_limit", limited)
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

    def _recovered(self, remaining: float, now: float) -> None:
        """Note that failures are over, and that there is a valid token if it has `remaining` seconds."""
        if remaining:
            self.log.renewed()
        if (recovered := self.log.succeeded(now)) is not None:
            self.say(recovered)

    def say(self, line: Line) -> None:
        """Write one log line."""
        say(_LEVELS[line.level], line.text, name=self.target.full_name)


def share_of(target: Target, parts: Parts) -> Shared | None:
    """The target's share; None if its client does not share."""
    fleet = parts.fleet(target)
    return None if fleet is None else Shared(fleet)

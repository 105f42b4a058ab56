"""When one target asks for a token, and what comes of it: the token that is held, and the failures since the last one.

A target that is due asks admission; once it is let go it performs a grant, compares the reply with the token that is
held, and sets the moment of the next attempt.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import Final

from bearerd.admission.types import Ask, Held, Refusal, Settled
from bearerd.grant.outcome import KINDS, Failure, Issued, Outcome, Performed, Refused, Transient
from bearerd.lifecycle import policy
from bearerd.lifecycle.failure_log import FailureLog, Line
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.token_state import Accepted, TokenState, accept, resumed
from bearerd.log import say
from bearerd.model import Instant, Target, Token
from bearerd.publish.record import Record
from bearerd.words import duration

# Hex digits of a token's SHA-256: enough to tell it from any other, and nothing to find it by.
_DIGEST: Final = 16
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_KINDS: Final = tuple(KINDS)


class Attempts:
    """The attempts of one target. Called by one thread at a time; attributes may be read by any."""

    # With so many attributes a dict of its own for each would be 2 KB: 20 MB of ten thousand.
    __slots__ = (
        "_client_id", "_last_attempt", "_last_held", "_last_made", "_not_before", "_outcomes", "_parts", "_requested",
        "due", "held", "identity", "log", "next", "same", "state", "target",
    )  # fmt: skip

    def __init__(self, target: Target, parts: Parts) -> None:
        self.target = target
        self._parts = parts
        self.state = TokenState()
        self.log = FailureLog()
        self._client_id = ""
        self.identity = ""
        """What the token was asked for; another than the target's from a changed config until the next grant."""
        self.due = 0.0
        """Boot clock, as all moments here: when the token is to be refreshed, or asked for again."""
        # What the last outcome asked for; neither a step of the clock nor a request brings an attempt before it.
        self._not_before = 0.0
        self._last_attempt: float | None = None
        """When one more attempt is made before the token expires; None while nothing stands in its way."""
        self._last_held = False
        """Whether admission holds even that attempt."""
        self._last_made = False
        self._requested = False
        """Whether somebody asked for a new token before it is due."""
        self.held: Held | None = None
        """What holds the target, where it is due."""
        self.next = 0.0
        """When the next attempt is made, as far as that is known."""
        self.same = False
        """Whether the provider last answered with the token that was held."""
        self._outcomes = [0] * len(KINDS)

    # -- what is asked between two turns ---------------------------------------------------------

    def resume(self, record: Record | None, client_id: str | None) -> bool:
        """Take up the record, if it is this target's; whether its times were written by clocks that were set since.

        An expired one only tells the same token from a new one.
        """
        now = self._parts.clock.now()
        self.due = now.boot
        target = self.target
        if record is None or record.identity != target.identity() or client_id not in (None, record.client_id):
            return False
        self._parts.admission.worked(target.client.name)
        dated = policy.redate(record.token, now)
        self.state = resumed(dated.token, now.boot, named=record.named, sliding=record.sliding)
        self._client_id, self.identity = record.client_id, record.identity
        if self.state.stale:
            return False
        remaining = self.state.remaining(now.boot)
        if not dated.disagreed and remaining >= self._parts.least:
            self.due = max(now.boot, self._refresh_due(dated.token, now.boot - policy.LEAST_BETWEEN_ATTEMPTS))
        say(logging.INFO, f"the token on record is good for {duration(remaining)}", name=target.full_name)
        return dated.stepped

    def adopt(self, target: Target) -> None:
        """Go on as a changed config has it: another token is asked for now, and whoever fails asks now."""
        old, self.target = self.target, target
        now = self._parts.clock.now().boot
        asks_otherwise = old.identity() != target.identity() or old.client.client_id != target.client.client_id
        if asks_otherwise:
            self._parts.admission.forget(target.full_name, old.client.name, now)
        token = self.state.current
        if asks_otherwise or self.log.failure is not None or (token is not None and not self.is_for_target):
            self._due_now(now)
        elif token is not None and _schedule(old) != _schedule(target):
            self.due = max(now, self._refresh_due(token, now - policy.LEAST_BETWEEN_ATTEMPTS))

    def credentials_changed(self) -> None:
        """The client's credentials changed: a target that fails asks at once, whatever the reason."""
        self._parts.clients.credentials_changed(self.target)
        if self.log.failure is not None:
            self._due_now(self._parts.clock.now().boot)

    def request(self, instead_of: str | None) -> None:
        """Somebody wants a new token, unless the turn that was under way brought it."""
        self._requested = self._requested or not self.is_newer(instead_of)

    def correct_times(self, now: Instant) -> bool:
        """Whether the clocks were set, and the token's times with them."""
        token = self.state.current
        dated = None if token is None else policy.redate(token, now)
        if dated is None or not dated.stepped:
            return False
        self.state = self.state.dated(dated.token)
        if self._last_attempt is not None:  # before the expiry as it is known now
            self._last_attempt = policy.last_attempt(now.boot, self.state.ends, self._parts.dice())
        if dated.disagreed:
            self.due = max(now.boot, self._not_before)
        good = duration(self.state.remaining(now.boot))
        refreshing = "; refreshing it" if dated.disagreed else ""
        self.say(Line("warning", f"the clock was set: by the earlier reading the token is good for {good}{refreshing}"))
        return True

    # -- what there is to know -------------------------------------------------------------------

    @property
    def is_for_target(self) -> bool:
        """Whether the token that is held is what the present config asks for."""
        return self.identity == self.target.identity()

    @property
    def record(self) -> Record | None:
        """What is kept of the token; None without one that is for the target."""
        state = self.state
        token = state.current
        if token is None or not self.is_for_target:
            return None
        return Record(token, self.identity, self._client_id, named=state.named, sliding=state.sliding)

    @property
    def outcomes(self) -> tuple[int, ...]:
        """How many grants came to each kind (`KINDS`)."""
        return tuple(self._outcomes)

    def is_newer(self, instead_of: str | None) -> bool:
        """Whether there is a good token that is another than the one with this digest."""
        state = self.state
        token = state.current
        if instead_of is None or token is None or state.ends <= self._parts.clock.now().boot:
            return False
        known = hashlib.sha256(token.access_token.encode()).hexdigest()[:_DIGEST]
        return not hmac.compare_digest(known, instead_of.lower())

    def ask(self, now: float, *, requested: bool = False) -> Ask:
        """What it asks admission."""
        target, token = self.target, self.state.current
        lifetime = token.lifetime if token else 0.0
        return Ask(
            name=target.full_name,
            client=target.client.name,
            expires=self.state.ends if token else None,
            lifetime=lifetime,
            period=policy.planned(lifetime, target.refresh_before, target.max_staleness, target.max_age),
            failures=self.log.attempts,
            retry=isinstance(self.log.failure, Transient),
            last_attempt=self._last_attempt is not None and now >= self._last_attempt,
            requested=requested and now < self.due,
        )

    def refusal(self) -> Refusal | None:
        """How the target is refused at present, on its own or with its client."""
        return self._parts.admission.refusal(self.target.full_name, self.target.client.name)

    def what_holds(self) -> Held | None:
        """What holds the target now. What was known when it asked may have changed since, without a turn of it."""
        held = self.held
        if held is None or held.until < inf:
            return held
        now = self._parts.clock.now().boot
        return self._parts.admission.preview(self.ask(now, requested=self._requested), now) or held

    def next_turn(self) -> float:
        """When it asks admission next."""
        at = self.held.again if self.held is not None else self.due
        if self._requested and self.held is None:
            at = min(at, self._not_before)
        return self._or_last(at)

    def _or_last(self, at: float) -> float:
        """That moment, or the one of the last attempt before the token expires."""
        if self._last_attempt is None or (self.held is not None and self._last_held):
            return at
        return min(at, self._last_attempt)

    # -- an attempt ------------------------------------------------------------------------------

    def run(self) -> None:
        """Ask, if that is due: admission first, and if it lets the target go the provider."""
        now = self._parts.clock.now()
        self.held = None
        if not self.state.remaining(now.boot):
            self._last_attempt = None  # there is nothing to lose any more
        if now.boot >= self.next_turn():
            self.held = self._ask(now)
        self.next = self._next(self._parts.clock.now().boot)

    def _ask(self, now: Instant) -> Held | None:
        """What holds the target, where it was not let go."""
        parts, ask = self._parts, self.ask(now.boot, requested=self._requested)
        answer = parts.admission.request(ask, now.boot)
        if isinstance(answer, Held):
            if ask.requested and answer.reason == "rate_limit":
                self._requested = False  # what is left of the limit is for the refresh that is due
                return None
            self._last_held = ask.last_attempt
            self._plan_last_attempt(now.boot)
            return answer
        self._requested = False
        if ask.last_attempt:
            self._last_attempt, self._last_made = None, True
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
        finally:
            # Whatever happens: its place is another's now.
            settled = parts.admission.settle(answer.ticket, outcome, parts.clock.now().boot)
        first = self.state.current is None
        if accepted is not None:
            self._take(accepted, performed.client_id)
        if isinstance(outcome, Failure):
            self._fail(outcome, settled, now.boot)
        elif accepted is not None:
            self._succeed(accepted, outcome.notes if first else (), now)
        parts.counted(self.target, replace(performed, outcome=outcome))
        # After all else is noted: who waits for one more grant sees what came of it.
        self._outcomes[_KINDS.index(type(outcome))] += 1
        return None

    def _judge(self, issued: Issued, performed: Performed, now: Instant) -> Accepted:
        """What the reply says, compared with the token that is held for the same thing."""
        state = self.state if self.is_for_target else TokenState()
        return accept(state, issued, now, lambda token: self._refresh_due(token, now.boot), performed.skew)

    def _take(self, accepted: Accepted, client_id: str) -> None:
        """Go on with the state after a reply."""
        self.state = accepted.state
        if accepted.kind == "expired":
            return
        self._client_id, self.identity = client_id, self.target.identity()
        if accepted.kind in {"new", "renewed"}:
            self._last_attempt, self._last_made = None, False

    def _succeed(self, accepted: Accepted, notes: Iterable[str], now: Instant) -> None:
        remaining = self.state.remaining(now.boot)
        self.due, self._not_before = accepted.due, now.boot + policy.LEAST_BETWEEN_ATTEMPTS
        self._last_attempt = None
        self.same = accepted.kind != "new"
        for note in notes:
            self.say(Line("warning", note))
        if remaining:
            self.log.renewed()
        if (recovered := self.log.succeeded(now.boot)) is not None:
            self.say(recovered)
        good, wait = duration(remaining), self.due - now.boot
        when = "now" if wait <= 0 else f"in {duration(wait)}"
        match accepted.kind:
            case "new":
                line = Line("info", f"token obtained, good for {good}; next refresh {when}")
            case "renewed":
                line = Line("info", f"the provider prolonged the token: good for {good}; asking again {when}")
            case "at_end":
                line = Line("debug", f"the provider answers with the token that is at its end; asking again {when}")
            case _:
                line = Line("debug", f"the same token again, good for {good}; asking again {when}")
        self.say(line)

    def _fail(self, failure: Failure, settled: Settled, now: float) -> None:
        """Take note of a failure, and of when the next attempt is."""
        self.log.failed(failure, now)
        remaining = self.state.remaining(now)
        if isinstance(failure, Refused):
            # It asks admission right away, and is told there how long it waits: whoever finds that the client works
            # again wakes the others.
            self.due = self._not_before = now + policy.LEAST_BETWEEN_ATTEMPTS
            until = max(settled.until, self.due)
        else:
            wait = policy.wait_after(failure, self.log.count(failure), remaining, self._parts.dice())
            until = self.due = self._not_before = now + wait
        self._plan_last_attempt(now)
        self.say(self.log.describe(failure, now, remaining, self._or_last(until)))

    def _next(self, now: float) -> float:
        """When the next attempt is made, as far as that is known."""
        if self.held is not None:
            at = self.held.until
        else:
            at = self.next_turn()
            refusal = self.refusal() if isinstance(self.log.failure, Refused) else None
            if refusal is not None and at <= now + policy.LEAST_BETWEEN_ATTEMPTS:
                at = max(at, refusal.next_probe)  # what admission will say when it is asked
        return self._or_last(at)

    def _plan_last_attempt(self, now: float) -> None:
        """Something stands in the way: plan one more attempt before the token expires, once for each token."""
        if self._last_attempt is None and not self._last_made and self.state.remaining(now):
            self._last_attempt = policy.last_attempt(now, self.state.ends, self._parts.dice())

    def _refresh_due(self, token: Token, last_attempt: float) -> float:
        target = self.target
        return policy.due_after_issue(
            token, target.refresh_before, target.max_staleness, last_attempt, self._parts.dice(), target.max_age
        )

    def _due_now(self, now: float) -> None:
        """What stood in the way is different: ask now, whatever the last failure asked for."""
        self.due = self._not_before = now
        self.log.forgive()

    def say(self, line: Line) -> None:
        """One line of the log."""
        say(_LEVELS[line.level], line.text, name=self.target.full_name)


def _schedule(target: Target) -> tuple[object, ...]:
    """What of a target decides when its token is refreshed."""
    return target.refresh_before, target.max_staleness, target.max_age

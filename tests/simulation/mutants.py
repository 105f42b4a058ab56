"""Eleven faults of 0.1.0, each put back into the present code, to show that the simulation finds them.

Each changes what the daemon does, and nothing of what is checked. The rows are those of the list of faults that the
project found by using 0.1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from math import inf
from typing import Any, Final

from bearerd.admission import breaker, core, parts, queue, rate, retry, waiting
from bearerd.admission.types import Ask, Granted, Limits
from bearerd.grant.outcome import Issued, Refused
from bearerd.lifecycle import held_token, policy, reconcile, token_state
from bearerd.lifecycle.token_state import Accepted, TokenState
from bearerd.model import Target
from bearerd.terms import Instant, Token
from simulation.faults import Mutant, Patches


def _l1() -> Patches:
    def accept(
        _state: TokenState, issued: Issued, _now: Instant, refresh_due: Callable[[Token], float], _skew: float | None
    ) -> Accepted:
        token = issued.token
        return Accepted(TokenState(token, token.expires.boot), "new", refresh_due(token))

    return [(token_state, "_accept", accept)]


def _l2() -> Patches:
    def renewed(state: TokenState, _issued: Issued, now: float, _due: Callable[[Token], float]) -> Accepted:
        return Accepted(replace(state, confirmed=-inf), "same", now + policy.LEAST_BETWEEN_ATTEMPTS)

    return [(token_state, "_renewed", renewed)]


def _l5() -> Patches:
    def turn(
        self: reconcile.Reconciler[Any], name: str, target: Target | None, controller: Any, wishes: Collection[Any]
    ) -> float:
        if target is not None:
            return float(controller.reconcile(target, wishes, self._wanted_paths))
        if controller is not None:
            controller.withdraw(wishes, self._wanted_paths)
        with self._lock:  # whatever is wanted by now
            self._controllers.pop(name, None)
            self._inbox.pop(name, None)
            self._turns.remove(name)
        return inf

    return [(reconcile.Reconciler, "_turn", turn)]


def _l6() -> Patches:
    got_token = breaker.Breaker.got_token

    def forgets(self: breaker.Breaker, name: str, sent: float, now: float) -> None:
        self.tried.clear()
        self.own.clear()
        got_token(self, name, sent, now)

    def refused(self: breaker.Breaker, name: str, outcome: Refused, _sent: float, now: float, **_: Any) -> None:
        self._dirty |= {"", name}
        self.refusals += 1
        self.refusal = outcome
        self._wait(now)

    return [
        (breaker.Breaker, "got_token", forgets),
        (breaker.Breaker, "refused_client", refused),
        (breaker, "FIRST_TARGETS", 0),
    ]


def _l7() -> Patches:
    terms = parts.Client.terms

    def hostage(self: parts.Client, ask: Ask, now: float) -> parts.Terms:
        return terms(self, ask, now)._replace(retry=True)

    def opens(self: retry.RetryBudget, now: float) -> float:
        return max(now, self._at + min(3600.0, 2.0**self._unanswered)) if self._unanswered else now

    def failed(self: retry.RetryBudget, now: float) -> None:
        self._at = now
        self._unanswered = min(self._unanswered + 1, 20)

    return [
        (parts.Client, "terms", hostage),
        (retry.RetryBudget, "earliest", opens),
        (retry.RetryBudget, "failed", failed),
        (retry.RetryBudget, "take", lambda self, now: setattr(self, "_at", now)),
        (retry.RetryBudget, "give_back", lambda *_: None),
    ]


def _l8() -> Patches:
    revise = core.Core.revise

    def promised(self: core.Core, limits: Limits, now: float) -> None:
        waiting = {timed.client for timed in self.waiting.timed.values()}
        waiting |= {client.name for client in self.registry.clients.values() if client.queues}
        before = {name: (client.rates, client.shared) for name, client in self.registry.clients.items()}
        revise(self, limits, now)
        for name in waiting & self.registry.clients.keys():
            client = self.registry.clients[name]
            client.rates, client.shared = before[name]

    return [(core.Core, "revise", promised), (core, "FALLBACK", 8 * 3600.0)]


def _l9() -> Patches:
    claim, settle = core.Core._claim, core.Core.settle

    def later(self: core.Core, flight: Any, ask: Ask, now: float) -> Granted:
        before = len(self._entries)
        granted = claim(self, flight, ask, now)
        del self._entries[before:]
        return granted

    def settled(self: core.Core, ticket: Any, outcome: Any, now: float) -> Any:
        flight = self._attempts.get(ticket.number)
        if flight is not None and flight.recorded:
            self._entries.append(core._sent(flight))
        return settle(self, ticket, outcome, now)

    return [(core.Core, "_claim", later), (core.Core, "settle", settled)]


def _l10() -> Patches:
    return [(rate.Rate, "restore", lambda *_: None)]


def _l12() -> Patches:
    return [(policy, "last_attempt", lambda *_: None)]


def _l15() -> Patches:
    def first(self: queue.Queue[Any], _now: float) -> Any:
        return next(iter(self._entries), None)

    return [(queue.Queue, "top", first), (waiting, "urgency", lambda *_: (0, 0.0, 0.0))]


def _l19() -> Patches:
    return [(held_token, "wait", lambda *_: None)]


MUTANTS: Final = (
    Mutant("L1", "the same token with 0 s left is taken for a new one", "healthy", _l1),
    Mutant("L2", "a provider that confirms the same token causes an alarm", "healthy", _l2),
    Mutant("L5", "removed and put back while its files are deleted: gone", "busy", _l5),
    Mutant("L6", "one target that is refused holds its client", "scopes", _l6),
    Mutant("L7", "one target that always fails holds its provider", "scopes", _l7),
    Mutant("L8", "a rate limit that a reload removed holds on", "limited", _l8),
    Mutant("L9", "an attempt in which the process is killed is forgotten", "crashes", _l9),
    Mutant("L10", "a restart forgets what a rate limit counted", "limited", _l10),
    Mutant("L12", "no last attempt before a token expires", "ill", _l12),
    Mutant("L15", "the queue pays no regard to urgency", "herd", _l15),
    Mutant("L19", "a new token is published before it is accepted", "healthy", _l19),
)

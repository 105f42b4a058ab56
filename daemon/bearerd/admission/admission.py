"""Thread-safe admission: the core behind one lock, its journal, and a callback that wakes targets.

One attempt looks like this:

    answer = admission.request(ask, now)
    match answer:
        case Held():
            ...                                # next turn at answer.again, or earlier if woken
        case Granted(ticket):
            outcome = None
            try:
                outcome = grants.perform(target).outcome
            finally:
                settled = admission.settle(ticket, outcome, clock.now().boot)   # None: an exception, outcome unknown

`wake(name, at)` is called without admission's lock, from any thread that calls a method here, and never for the target
whose `request` is being answered. It must give the target a turn by `at`. If a turn of the target is running, it must
give another one afterwards. No wake may be lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bearerd.admission.core import Core
from bearerd.admission.journal import Journal
from bearerd.admission.ledger import Past, replay
from bearerd.admission.types import Ask, Granted, Held, Limits, Refusal, Settled, Ticket, View, Wake
from bearerd.admission.view import view
from bearerd.grant.outcome import Outcome, Refused
from bearerd.log import say
from bearerd.plural import counted


class Admission:
    """Decides which targets may request a token. Thread-safe. The lock is held for microseconds, never during a grant.

    `now` is always a time of the boot clock. Locks are taken in this order: the journal's, the core's.
    """

    def __init__(
        self, limits: Limits, wake: Callable[[str, float], None], journal: Journal | None = None, now: float = 0.0
    ) -> None:
        """`journal` holds the attempts of earlier processes, and is written before an attempt is sent."""
        deadlines = {name: each.deadline for name, each in limits.clients.items()}
        past = replay(journal.past, deadlines) if journal else None
        if past is not None:
            _say_unknown(past, limits)
        self._core = Core(limits, past, now)
        self._lock = threading.Lock()
        self._wake = wake
        self._journal = journal
        self._writing = threading.Lock()
        if journal is not None:
            journal.past = []
            journal.rewrite(self._core.dump(now))

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Decide whether the target may send one attempt now. The ticket of a `Granted` must be settled."""
        with self._lock:
            answer = self._core.request(ask, now)
            wakes, noted = self._core.take_wakes(), self._core.noted
        if noted:
            self._write()  # before the attempt is sent, so that a crash does not forget it
        self._wake_all(wakes)
        return answer

    def preview(self, ask: Ask, now: float) -> Held | None:
        """The answer that `request` would give, without changing anything. None means granted."""
        with self._lock:
            return self._core.preview(ask, now)

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """Report the outcome of an attempt. None: an exception interrupted it, and its outcome is unknown.

        Wakes targets that may go now, most urgent first.
        """
        with self._lock:
            settled = self._core.settle(ticket, outcome, now)
            wakes, noted = self._core.take_wakes(), self._core.noted
        self._wake_all(wakes)
        if noted:
            self._write()
        return settled

    def revise(self, limits: Limits, now: float) -> None:
        """Apply the limits of a changed config. Wakes every target that may go now, or earlier than before."""
        self._change(lambda core: core.revise(limits, now))

    def forgive(self, client: str, now: float) -> None:
        """Half-open the client's breaker, because its credentials or its config changed.

        Wakes its held targets in order. They may use the one refused attempt that is reserved for this case.
        """
        self._change(lambda core: core.forgive(client, now))

    def worked(self, client: str) -> None:
        """Note that the client's credentials worked before, which shortens the waits after refusals."""
        self._change(lambda core: core.worked(client))

    def fleet_refused(self, name: str, client: str, outcome: Refused, refusals: int, wait: float, now: float) -> None:
        """Note that another daemon of the fleet was refused.

        `outcome` says whether that concerns the client or the target alone. `refusals` counts refusals in a row, this
        one included. The next attempt of the fleet is in `wait` seconds.
        """
        self._change(lambda core: core.fleet_refused(name, client, outcome, refusals, wait, now))

    def fleet_issued(self, name: str, client: str, now: float) -> None:
        """Note that another daemon of the fleet has just obtained a token: the credentials work."""
        self._change(lambda core: core.fleet_issued(name, client, now))

    def cancel(self, name: str, client: str, now: float) -> None:
        """Remove a target from its queue: it has a token from elsewhere. Wakes the next one."""
        self._change(lambda core: core.cancel(name, client, now))

    def forget(self, name: str, client: str, now: float) -> None:
        """Remove a target that is no longer wanted. Wakes the next one in the queue."""
        self._change(lambda core: core.forget(name, client, now))

    def sweep(self, now: float) -> None:
        """Settle tickets past their deadline and pass over targets that did not request. Call it every few seconds."""
        self._change(lambda core: core.sweep(now))
        if self._journal is not None and (self._journal.grown() or self._journal.missing()):
            with self._writing:
                with self._lock:
                    everything = list(self._core.dump(now))
                    self._core.take_entries()  # `everything` includes them
                self._journal.rewrite(everything)

    def refusal(self, name: str, client: str) -> Refusal | None:
        """The refusal that holds the target, its own or its client's; None if it is not refused."""
        with self._lock:
            return self._core.refusal(name, client)

    def view(self, now: float) -> View:
        """Breakers, budgets and queues, for status and metrics."""
        with self._lock:
            return view(self._core, now)

    def fault(self) -> str:
        """Why the journal is not written; empty if it is."""
        return "" if self._journal is None else self._journal.fault

    def close(self) -> None:
        """Close the journal, which releases its lock."""
        if self._journal is not None:
            with self._writing:
                self._journal.close()

    def _change(self, change: Callable[[Core], None]) -> None:
        with self._lock:
            change(self._core)
            wakes, noted = self._core.take_wakes(), self._core.noted
        self._wake_all(wakes)
        if noted:
            self._write()

    def _write(self) -> None:
        """Write all pending entries. On return, no entry that was pending at the call is unwritten."""
        with self._writing:
            with self._lock:
                entries = self._core.take_entries()
            if entries and self._journal is not None:
                self._journal.append(entries)

    def _wake_all(self, wakes: tuple[Wake, ...]) -> None:
        for name, at in wakes:
            self._wake(name, at)


def _say_unknown(past: Past, limits: Limits) -> None:
    """Log which clients have attempts of a killed process in their `refused_limit`."""
    for client, ages in past.unknown.items():
        known = limits.clients.get(client)
        count = sum(age < known.refused_limit.window for age in ages) if known else 0
        if count:
            have, count_as = ("has", "counts") if count == 1 else ("have", "count")
            say(
                logging.WARNING,
                f"client {client}: {counted(count, 'request')} of a killed process {have} no known outcome and "
                f"{count_as} as refused; requests wait while refused_limit is used up",
            )

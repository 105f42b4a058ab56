"""Admission for threads: the core behind one lock, its journal, and a way to wake targets.

Order of events for one attempt:

    answer = admission.request(ask, now)
    match answer:
        case Held():
            ...                                # next turn at answer.again at the latest, earlier if woken
        case Granted(ticket):
            outcome = None
            try:
                outcome = grants.perform(target).outcome
            finally:
                settled = admission.settle(ticket, outcome, clock.now().boot)   # None: it broke off

`wake(name, at)` is called without admission's lock held, from any thread that calls a method here, and never for the
target of that very `request`. It must give the target a turn at `at` at the latest, or, if a turn of it is under
way, another one after that: no wake may be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from bearerd.admission.core import Core
from bearerd.admission.journal import Journal
from bearerd.admission.ledger import replay
from bearerd.admission.types import Ask, Granted, Held, Limits, Refusal, Settled, Ticket, View, Wake
from bearerd.admission.view import view
from bearerd.grant.outcome import Outcome


class Admission:
    """Decides which targets may ask. Safe for threads; its lock is held for microseconds and never during a grant.

    `now` is always the boot clock's. Locks are taken in this order: the journal's, the core's.
    """

    def __init__(
        self, limits: Limits, wake: Callable[[str, float], None], journal: Journal | None = None, now: float = 0.0
    ) -> None:
        """`journal` holds what earlier processes did, and is written before an attempt is sent; None keeps nothing."""
        self._core = Core(limits, replay(journal.past) if journal else None, now)
        self._lock = threading.Lock()
        self._wake = wake
        self._journal = journal
        self._writing = threading.Lock()
        if journal is not None:
            journal.past = []
            journal.rewrite(self._core.dump(now))

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Whether the target may send one attempt now. Granted: the ticket must be settled."""
        with self._lock:
            answer = self._core.request(ask, now)
            wakes, noted = self._core.take_wakes(), self._core.noted
        if noted:
            self._write()  # before the attempt is sent: a killed process must not forget it
        self._wake_all(wakes)
        return answer

    def preview(self, ask: Ask, now: float) -> Held | None:
        """What `request` would answer, changing nothing: None means granted. For `refresh`, which says why at once."""
        with self._lock:
            return self._core.preview(ask, now)

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """What the attempt came to; None: it broke off (an exception), and nobody knows what the provider saw.

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
        """A changed config: waits under old limits are void. Wakes every target that may go now, or sooner."""
        self._change(lambda core: core.revise(limits, now))

    def forgive(self, client: str, now: float) -> None:
        """The client's credentials (or what else it is judged by) changed: its breaker half-opens at once.

        Wakes its held targets in their order. The one refused attempt that is kept for this case may be used.
        """
        self._change(lambda core: core.forgive(client, now))

    def worked(self, client: str) -> None:
        """The client got a token with its present credentials before (a record holds one): sets a refusal's pace."""
        self._change(lambda core: core.worked(client))

    def forget(self, name: str, client: str, now: float) -> None:
        """The target is no longer wanted: it waits for nothing. Wakes the next in its place."""
        self._change(lambda core: core.forget(name, client, now))

    def sweep(self, now: float) -> None:
        """To be called every few seconds: settles tickets past their deadline, and wakes the next where one slept."""
        self._change(lambda core: core.sweep(now))
        if self._journal is not None and (self._journal.grown() or self._journal.missing()):
            with self._writing:
                with self._lock:
                    everything = list(self._core.dump(now))
                    self._core.take_entries()  # they are in it
                self._journal.rewrite(everything)

    def refusal(self, name: str, client: str) -> Refusal | None:
        """How the target is refused at present: on its own, or with its client; None if it is not."""
        with self._lock:
            return self._core.refusal(name, client)

    def view(self, now: float) -> View:
        """Everything, for status and metrics."""
        with self._lock:
            return view(self._core, now)

    def close(self) -> None:
        """Give the journal's lock back."""
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
        """Write all that was noted; when it returns, whatever was noted before is written, whoever wrote it."""
        with self._writing:
            with self._lock:
                entries = self._core.take_entries()
            if entries and self._journal is not None:
                self._journal.append(entries)

    def _wake_all(self, wakes: tuple[Wake, ...]) -> None:
        for name, at in wakes:
            self._wake(name, at)

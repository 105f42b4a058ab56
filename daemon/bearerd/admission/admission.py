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

from collections.abc import Callable

from bearerd.admission.journal import Journal
from bearerd.admission.types import Ask, Granted, Held, Limits, Refusal, Settled, Ticket, View
from bearerd.grant.outcome import Outcome


class Admission:
    """Decides which targets may ask. Safe for threads; its lock is held for microseconds and never during a grant.

    `now` is always the boot clock's.
    """

    def __init__(
        self, limits: Limits, wake: Callable[[str, float], None], journal: Journal | None = None, now: float = 0.0
    ) -> None:
        """`journal` holds what earlier processes did, and is written before an attempt is sent; None keeps nothing."""
        raise NotImplementedError

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Whether the target may send one attempt now. Granted: the ticket must be settled."""
        raise NotImplementedError

    def preview(self, ask: Ask, now: float) -> Held | None:
        """What `request` would answer, changing nothing: None means granted. For `refresh`, which says why at once."""
        raise NotImplementedError

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """What the attempt came to; None: it broke off (an exception), and nobody knows what the provider saw.

        Wakes targets that may go now, most urgent first.
        """
        raise NotImplementedError

    def revise(self, limits: Limits, now: float) -> None:
        """A changed config: waits under old limits are void. Wakes every target for which something changed."""
        raise NotImplementedError

    def forgive(self, client: str, now: float) -> None:
        """The client's credentials (or what else it is judged by) changed: its breaker half-opens at once.

        Wakes its held targets. The one refused attempt that is kept for this case may be used.
        """
        raise NotImplementedError

    def worked(self, client: str) -> None:
        """The client got a token with its present credentials before (a record holds one): sets a refusal's pace."""
        raise NotImplementedError

    def forget(self, name: str, client: str, now: float) -> None:
        """The target is no longer wanted: it waits for nothing. Wakes the next in its place."""
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """To be called every few seconds: settles tickets past their deadline, and wakes the next where one slept."""
        raise NotImplementedError

    def refusal(self, name: str, client: str) -> Refusal | None:
        """How the target is refused at present: on its own, or with its client; None if it is not."""
        raise NotImplementedError

    def view(self, now: float) -> View:
        """Everything, for status and metrics."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the journal's lock back."""
        raise NotImplementedError

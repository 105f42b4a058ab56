"""The doors, safe for threads: wakes those who were held, and keeps what is to outlive a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from bearerd.clock import Clock
from bearerd.grant import perform
from bearerd.grant.outcome import Outcome, Refused
from bearerd.lifecycle.doors import WORTH_KEEPING, Admission, Doors, Kind
from bearerd.log import say
from bearerd.model import Target


class Memory(perform.Memory, Protocol):
    """What outlives a restart."""

    def names(self, kind: str) -> set[str]:
        """Under which names there is something."""
        ...


class Gate:
    """The doors of all clients and providers. `wake` gives a target a turn."""

    def __init__(self, wake: Callable[[str], None], memory: Memory | None = None) -> None:
        self._lock = threading.Lock()
        self._keeping = threading.Lock()
        self._doors = Doors()
        self._wake = wake
        self._memory = memory

    def restore(self, targets: Iterable[Target], clock: Clock) -> None:
        """Take up what an earlier run knew of these clients and of their limits."""
        if self._memory is None:
            return
        clients = {target.client.name: target.client for target in targets}
        for name in self._memory.names("clients") & clients.keys():
            self._restore("clients", name, clock.now().boot)
        budgets = {
            budget for client in clients.values() for budget, limit in client.budgets if limit.window >= WORTH_KEEPING
        }
        for name in self._memory.names("budgets") & budgets:
            self._restore("budgets", name, clock.now().boot)

    def admit(self, target: Target, now: float, remaining: float) -> Admission:
        """Whether the target may go, else when to come again."""
        with self._lock:
            admission = self._doors.admit(target, now, remaining)
        if not admission.reason:
            # Before anything is sent: what is not known after a crash would be sent again.
            self._keep(now)
        return admission

    def ask(self, target: Target, now: float) -> float:
        """When somebody who asks may have a grant besides the regular ones: `now`, else a later moment."""
        with self._lock:
            return self._doors.ask(target, now)

    def report(self, target: Target, outcome: Outcome | None, now: float, wait: float) -> None:
        """What the grant came to; whoever was held and may go now is given a turn."""
        with self._lock:
            released = self._doors.report(target, outcome, now, wait)
        self._keep(now)
        self._wake_all(released - {target.full_name})

    def prove(self, target: Target) -> None:
        """The target's credentials worked before."""
        with self._lock:
            self._doors.prove(target)

    def history(self, target: Target) -> tuple[bool, int]:
        """Whether the target's credentials ever worked, and how often in a row the client was refused."""
        with self._lock:
            return self._doors.proven(target), self._doors.refusals(target)

    def refusal(self, target: Target) -> Refused | None:
        """How the target's client was refused, while it is."""
        with self._lock:
            return self._doors.refusal(target.client.name)

    def renew(self, client: str, now: float) -> None:
        """The client has a secret that was not refused yet: it may go at once."""
        with self._lock:
            released = self._doors.renew(client)
        self._keep(now)
        self._wake_all(released)

    def _wake_all(self, names: Iterable[str]) -> None:
        for name in names:
            self._wake(name)

    # -- what outlives a restart -----------------------------------------------------------------

    def _restore(self, kind: Kind, name: str, now: float) -> None:
        kept = self._memory.load(kind, name) if self._memory else None
        if kept is None:
            return
        fields, elapsed = kept
        try:
            with self._lock:
                self._doors.restore(kind, name, fields, elapsed, now)
        except (ValueError, TypeError, KeyError, OverflowError):
            say(logging.WARNING, f"what was kept of {kind} {name} makes no sense: it is passed over")

    def _keep(self, now: float) -> None:
        if self._memory is None:
            return
        with self._keeping:  # of two at once the later must be written last
            with self._lock:
                changes = self._doors.changes(now)
            for kind, name, fields in changes:
                self._memory.save(kind, name, fields)

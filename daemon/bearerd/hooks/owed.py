"""Which hook runs are owed, and when each is due. Pure.

A hook runs once at a time. Changes during a run cause one more run for each token. A run that fails is tried again
after each wait of the backoff, then given up. Moments are those of the boot clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bearerd.model import Hook, Target

Event = Literal["change", "failure"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a hook that is owed for a token."""

    target: Target
    event: Event
    due: float
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs that one run of a hook settles."""

    hook: Hook
    runs: tuple[Run, ...]

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1; that of the run with the fewest."""
        return min(run.attempt for run in self.runs)


class Owed:
    """The runs that are owed or in progress, and how the last ones of each token ended. Not thread-safe."""

    def __init__(self, backoff: Sequence[float]) -> None:
        self._backoff = backoff
        self._owed: dict[Hook, dict[tuple[str, Event], Run]] = {}
        self._running: set[Hook] = set()
        self._pending: Counter[str] = Counter()
        """By token: the runs that are owed or in progress."""
        self._ended: dict[str, float] = {}
        self._faults: dict[str, dict[tuple[Hook, Event], str]] = {}
        """By token: hooks that failed for good, and did not succeed since."""
        self.given_up = 0
        """How many runs failed for good."""

    def add(self, target: Target, event: Event, hooks: Iterable[Hook], now: float) -> None:
        """These hooks are owed from now on, also those that wait for another attempt."""
        for hook in hooks:
            runs = self._owed.setdefault(hook, {})
            key = (target.full_name, event)
            if key not in runs:
                self._pending[target.full_name] += 1
            runs[key] = Run(target, event, now)

    def take(self, now: float) -> Batch | None:
        """The next runs to make now, if any. A signal is sent once for all tokens that owe it."""
        for hook, runs in self._owed.items():
            if hook in self._running:
                continue
            due = next((key for key, run in runs.items() if run.due <= now), None)
            if due is not None:
                self._running.add(hook)
                keys = tuple(runs) if hook.signal else (due,)
                return Batch(hook, tuple(runs.pop(key) for key in keys))
        return None

    def next_due(self) -> float | None:
        """When the next run that nobody has taken is due."""
        free = (runs.values() for hook, runs in self._owed.items() if hook not in self._running)
        return min((run.due for runs in free for run in runs), default=None)

    def finish(self, batch: Batch, fault: str | None, now: float) -> float | None:
        """A run ended, with this fault; returns in how many seconds it is tried again, None if it is not."""
        hook = batch.hook
        self._running.discard(hook)
        wait = self._backoff[batch.attempt - 1] if fault is not None and batch.attempt <= len(self._backoff) else None
        for run in batch.runs:
            if wait is None:
                self._end(hook, run, now, fault)
            else:
                self._owe_again(hook, replace(run, due=now + wait, attempt=batch.attempt + 1))
        if wait is None and fault is not None:
            self.given_up += 1
        if not self._owed[hook]:
            del self._owed[hook]
        return wait

    def abandon(self, batch: Batch) -> None:
        """A run was cut short by the end of the process: it stays owed."""
        self._running.discard(batch.hook)

    def forget(self, name: str) -> None:
        """The token was removed: nothing is owed for it."""
        self._ended.pop(name, None)
        self._faults.pop(name, None)
        for runs in self._owed.values():
            for key in [key for key in runs if key[0] == name]:
                del runs[key]
                self._settle(name)

    def pending(self, name: str) -> int:
        """How many runs are owed for a token, or in progress."""
        return self._pending[name]

    def settled(self) -> bool:
        """Whether no run is owed or in progress."""
        return not self._pending

    def undone(self, name: str) -> bool:
        """Whether hooks of a token are owed, or failed for good."""
        return name in self._pending or name in self._faults

    def last(self, name: str) -> tuple[float | None, str | None]:
        """When a token's last run ended, and the faults of those of its hooks that failed for good."""
        faults = self._faults.get(name)
        return self._ended.get(name), "; ".join(faults.values()) if faults else None

    # -- inside --------------------------------------------------------------------------------

    def _owe_again(self, hook: Hook, run: Run) -> None:
        runs = self._owed.setdefault(hook, {})
        key = (run.target.full_name, run.event)
        if key in runs:  # a change during the run
            self._settle(run.target.full_name)
        else:
            runs[key] = run

    def _end(self, hook: Hook, run: Run, now: float, fault: str | None) -> None:
        target, name = run.target, run.target.full_name
        self._settle(name)
        self._ended[name] = now
        faults = self._faults.pop(name, {})
        faults.pop((hook, run.event), None)
        if fault is not None:
            faults[hook, run.event] = f"hook {hook}: {fault}"
        # Hooks that are no longer in the config do not fail any more.
        configured = {*((one, "change") for one in target.on_change), *((one, "failure") for one in target.on_failure)}
        if left := {key: text for key, text in faults.items() if key in configured}:
            self._faults[name] = left

    def _settle(self, name: str) -> None:
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]

"""Which hook runs are owed, and when each is due. Pure.

A hook runs once at a time, and one run is for all tokens that owe it. Changes during a run cause one more run. A run
that fails is tried again after each wait of the backoff, then given up; each token has its own attempts. Moments are
those of the boot clock.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import inf
from typing import Final, Literal

from bearerd.model import Target
from bearerd.terms import Hook

Event = Literal["change", "failure"]
_EVENTS: Final[tuple[Event, ...]] = ("change", "failure")

LARGEST: Final = 64 * 1024
"""Bytes of names and paths for one run of a command. Linux allows 128 KiB for a variable (MAX_ARG_STRLEN)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A hook is owed for a token."""

    target: Target
    event: Event
    due: float
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """What one run of a hook is for."""

    hook: Hook
    runs: tuple[Run, ...]
    now: float
    """When the run began. Some of `runs` may be due later: they wait for another attempt, and join this run."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The tokens, each once."""
        return tuple({run.target.full_name: run.target for run in self.runs}.values())


@dataclass(frozen=True, slots=True)
class Ended:
    """What follows from the end of a run. Tokens that were removed during the run are in neither tuple."""

    again: tuple[Run, ...] = ()
    """It failed, and is tried again for these."""
    given_up: tuple[Run, ...] = ()
    """It failed at every attempt for these."""


class Owed:
    """The runs that are owed or in progress, and how the last ones of each token ended. Not thread-safe."""

    def __init__(self, backoff: Sequence[float]) -> None:
        self._backoff = backoff
        self._owed: dict[Hook, dict[tuple[str, Event], Run]] = {}
        self._running: dict[Hook, Batch] = {}
        self._first: dict[Hook, float] = {}
        """By hook that is owed and not running: when the first of its runs is due."""
        # The same as a heap, with entries that no longer apply: each token may have a different hook.
        self._queue: list[tuple[float, int, Hook]] = []
        self._order = itertools.count()
        self._pending: Counter[str] = Counter()
        """By token: the runs that are owed or in progress."""
        self._ended: dict[str, float] = {}
        self._faults: dict[str, dict[tuple[Hook, Event], str]] = {}
        """By token: hooks that were given up, and have not succeeded since."""
        self.given_up = 0
        """The number of tokens for which a hook was given up."""

    def add(self, target: Target, event: Event, hooks: Iterable[Hook], now: float) -> None:
        """These hooks are owed from now on, also those that wait for another attempt."""
        for hook in map(_action, hooks):
            runs = self._owed.setdefault(hook, {})
            key = (target.full_name, event)
            due = now
            if key in runs:
                due = min(now, runs[key].due)  # one that waits for its turn keeps its place
            else:
                self._pending[target.full_name] += 1
            runs[key] = Run(target, event, due)
            self._line_up(hook, due)

    def take(self, now: float) -> Batch | None:
        """The next run to make now, if any: of the hook that has waited longest, for all tokens that owe it."""
        hook = self._longest_waiting()
        if hook is None or self._first[hook] > now:
            return None
        owed = self._owed[hook]
        runs = sorted(owed.values(), key=lambda run: run.due > now)
        if hook.signal is None:
            runs = _first(runs)
        keys = [(run.target.full_name, run.event) for run in runs]
        batch = self._running[hook] = Batch(hook, tuple(runs), now)
        # From here on nothing needs memory: a lack of it loses no run.
        del self._first[hook]
        for key in keys:
            del owed[key]
        return batch

    def next_due(self) -> float | None:
        """When the next run is due that no thread has taken."""
        hook = self._longest_waiting()
        return None if hook is None else self._first[hook]

    def finish(self, batch: Batch, fault: str | None, now: float) -> Ended:
        """A run ended, with this fault."""
        hook = batch.hook
        done, again, given_up = [], [], []
        for run in self._running[hook].runs:
            if fault is None:
                done.append(run)
            elif run.due > batch.now:  # this run was not its attempt
                again.append(run)
            elif run.attempt <= len(self._backoff):
                again.append(replace(run, due=now + self._backoff[run.attempt - 1], attempt=run.attempt + 1))
            else:
                given_up.append(run)
        ended = Ended(tuple(again), tuple(given_up))
        del self._running[hook]
        for run in done or given_up:
            self._end(hook, run, now, fault)
        for run in again:
            self._owe_again(hook, run)
        self.given_up += len(given_up)
        self._line_up_again(hook)
        return ended

    def run_again(self, batch: Batch) -> None:
        """`finish` raised an exception: what it did not record is run again."""
        hook = batch.hook
        if (running := self._running.pop(hook, None)) is not None:
            for run in running.runs:
                self._owe_again(hook, run)
        self._line_up_again(hook)

    def abandon(self, batch: Batch) -> None:
        """A run was cut short by the end of the process: it stays owed."""
        del self._running[batch.hook]

    def forget(self, name: str) -> None:
        """The token was removed: nothing is owed for it, and the end of a run in progress is not recorded for it."""
        self._ended.pop(name, None)
        self._faults.pop(name, None)
        for hook, runs in list(self._owed.items()):
            if [event for event in _EVENTS if runs.pop((name, event), None)]:
                self._line_up_again(hook)
        for hook, batch in self._running.items():
            self._running[hook] = replace(batch, runs=tuple(run for run in batch.runs if run.target.full_name != name))
        self._pending.pop(name, None)

    def pending(self, name: str) -> int:
        """How many runs are owed for a token, or in progress."""
        return self._pending[name]

    def settled(self) -> bool:
        """Whether no run is owed or in progress."""
        return not self._pending

    def undone(self, name: str) -> bool:
        """Whether hooks of a token are owed, or were given up."""
        return name in self._pending or name in self._faults

    def last(self, target: Target) -> tuple[float | None, str | None]:
        """When a token's last run ended, and the faults of its hooks that were given up."""
        faults = self._faults.get(target.full_name)
        configured = _configured(target) if faults else set()
        found = [text for key, text in faults.items() if key in configured] if faults else []
        return self._ended.get(target.full_name), "; ".join(found) or None

    # -- inside --------------------------------------------------------------------------------

    def _longest_waiting(self) -> Hook | None:
        """Of the hooks that are owed and not running, the one whose first run is due first."""
        queue = self._queue
        while queue and self._first.get(queue[0][2]) != queue[0][0]:
            heappop(queue)
        return queue[0][2] if queue else None

    def _line_up(self, hook: Hook, due: float) -> None:
        """A run of the hook is due at this time."""
        if hook not in self._running and due < self._first.get(hook, inf):
            self._first[hook] = due
            heappush(self._queue, (due, next(self._order), hook))

    def _line_up_again(self, hook: Hook) -> None:
        """Runs of the hook were removed, or it has ended."""
        self._first.pop(hook, None)
        if runs := self._owed.get(hook):
            self._line_up(hook, min(run.due for run in runs.values()))
        else:
            self._owed.pop(hook, None)

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
        configured = _configured(target)
        if left := {key: text for key, text in faults.items() if key in configured}:
            self._faults[name] = left

    def _settle(self, name: str) -> None:
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]


def _configured(target: Target) -> set[tuple[Hook, Event]]:
    """The hooks of a token. Those that are no longer in the config do not fail any more."""
    return {
        *((_action(one), "change") for one in target.on_change),
        *((_action(one), "failure") for one in target.on_failure),
    }


def _action(hook: Hook) -> Hook:
    """What is run: hooks that differ only in when they are owed are the same."""
    return replace(hook, skip_first=False) if hook.skip_first else hook


def _first(runs: Sequence[Run]) -> list[Run]:
    """As many of them as fit into the environment of one command; at least one."""
    size = 0
    for count, run in enumerate(runs):
        texts = (run.target.full_name, *(out.path for out in run.target.outputs))
        size += sum(len(text.encode(errors="surrogateescape")) + 1 for text in texts)
        if count and size > LARGEST:
            return list(runs[:count])
    return list(runs)

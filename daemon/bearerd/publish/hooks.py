"""Who is to be told of changed files and of tokens that stopped being renewable, and when.

One run of a hook at a time, whoever owes it; what changes meanwhile is one more run. A run that fails is tried
again up to three times. What is owed for changed files is noted on disk before the first of them changes, and
the note goes when all was done or given up: a crash between the two costs a second run, never a missing one.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from subprocess import Popen
from typing import Final, Literal, Protocol

from bearerd import child
from bearerd.clock import Clock
from bearerd.errors import HookFailed, PublishError
from bearerd.log import say
from bearerd.model import Hook, Target
from bearerd.publish.invoke import invoke
from bearerd.timeformat import duration

BACKOFF: Final = (1.0, 4.0, 16.0)
"""Seconds between the four attempts: what reloads is often busy for a moment."""

# They are other people's programs, on this machine's processors.
_AT_ONCE: Final = 8

Event = Literal["change", "failure"]


class Notes(Protocol):
    """Keeps on disk for whom hooks are owed."""

    def note(self, target: Target) -> None:
        """Note a target; raises PublishError."""
        ...

    def noted(self, target: Target) -> bool:
        """Whether it is noted."""
        ...

    def unnote(self, target: Target) -> None:
        """Take the note away."""
        ...


@dataclass(frozen=True, slots=True)
class _Errand:
    """One run that is owed."""

    target: Target
    event: Event
    at: float
    """Boot clock: not before."""
    attempt: int = 1


class Hooks:
    """Runs hooks on threads of its own, which end when nothing is owed."""

    def __init__(
        self,
        environ: Mapping[str, str],
        notes: Notes,
        clock: Clock,
        counted: Callable[[str], None] = lambda _: None,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._environ = environ
        self._notes = notes
        self._clock = clock
        self._counted = counted
        self._backoff = backoff
        self._noting = threading.Lock()
        self._noted: set[str] = set()
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._owed: dict[Hook, dict[tuple[str, Event], _Errand]] = {}
        self._busy: dict[Hook, Popen[bytes] | None] = {}
        self._workers = 0
        self._stopped = False
        self._over = False
        self._announced: set[str] = set()
        self._pending: Counter[str] = Counter()
        """By token: the runs that are owed or under way. Up to their end it stays noted."""
        self._ended: dict[str, float] = {}
        self._faults: dict[str, dict[tuple[Hook, Event], str]] = {}
        """By token: what its hooks failed of that were not done since."""
        self.given_up = 0
        """How many runs failed for the last time."""

    def announce(self, target: Target) -> None:
        """The target's files are about to change."""
        name = target.full_name
        if not target.on_change:
            return
        with self._noting:
            with self._lock:
                again = name in self._announced
                self._announced.add(name)
            if name in self._noted:
                return
            try:
                self._notes.note(target)
            except PublishError as error:
                if not again:  # who keeps the files tries every few seconds
                    say(logging.WARNING, f"hooks: {error}; a crash right now would lose them", name=name)
            else:
                self._noted.add(name)

    def owed(self, target: Target) -> bool:
        """Whether an earlier process changed the target's files, and ended before its hooks had."""
        if not target.on_change or not self._notes.noted(target):
            return False
        with self._noting:
            self._noted.add(target.full_name)
            with self._lock:  # until `changed`: no other hook's end takes the note away
                self._announced.add(target.full_name)
        return True

    def changed(self, target: Target, *, first: bool) -> None:
        """All files of the target are in place; `first`: there was no token before."""
        hooks = [hook for hook in target.on_change if not (first and hook.skip_first)]
        with self._lock:
            self._announced.discard(target.full_name)
            self._owe(target, "change", hooks)
        self._settle(target)

    def failed(self, target: Target) -> None:
        """The target's token stopped being renewable."""
        with self._lock:
            self._owe(target, "failure", target.on_failure)

    def tick(self) -> None:
        """What the main loop does every few seconds: see to what is owed where no thread could be started for it."""
        with self._lock:
            if not self._workers:
                self._staff()

    def pending(self, name: str) -> int:
        """How many runs are owed for a target, or under way."""
        with self._lock:
            return self._pending[name]

    def undone(self, name: str) -> bool:
        """Whether hooks of the target are owed, or failed for good."""
        with self._lock:
            return name in self._pending or name in self._faults

    def last(self, name: str) -> tuple[float | None, str | None]:
        """When (boot clock) the target's last run ended; and what of its hooks fails."""
        with self._lock:
            faults = self._faults.get(name)
            return self._ended.get(name), "; ".join(faults.values()) if faults else None

    def forget(self, name: str) -> None:
        """The target is no more, nor its note: nothing is owed for it."""
        with self._noting, self._lock:
            self._noted.discard(name)
            self._announced.discard(name)
            self._ended.pop(name, None)
            self._faults.pop(name, None)
            for line in self._owed.values():
                for key in [key for key in line if key[0] == name]:
                    del line[key]
                    self._finish(name)
            self._moved.notify_all()

    def wait(self, within: float) -> bool:
        """Until nothing is owed; whether that was within so many seconds."""
        with self._moved:
            return self._moved.wait_for(lambda: not self._pending, within)

    def stop(self, within: float) -> None:
        """Begin no more runs; those under way have so many seconds. What is noted is run at the next start."""
        with self._moved:
            self._stopped = True
            self._moved.notify_all()
            # Until then a worker may have a note to take away.
            self._moved.wait_for(lambda: not self._workers, within)
            self._over = True
            left = [process for process in self._busy.values() if process is not None]
        for process in left:
            if process.poll() is None:  # of one that has ended, what it left running is no business of ours
                child.kill(process)

    # -- inside: with the lock held ------------------------------------------------------------

    def _owe(self, target: Target, event: Event, hooks: Sequence[Hook]) -> None:
        now = self._clock.now().boot
        for hook in hooks:
            line = self._owed.setdefault(hook, {})
            key = (target.full_name, event)
            if key not in line:
                self._pending[target.full_name] += 1
            line[key] = _Errand(target, event, now)  # one that waits to be tried again is due now
        self._staff()
        self._moved.notify_all()

    def _staff(self) -> None:
        if self._workers >= _AT_ONCE or self._soonest() is None:
            return
        self._workers += 1
        try:
            threading.Thread(target=self._work, name="hook", daemon=True).start()
        except RuntimeError:  # no more threads may be started (TasksMax): the next that is owed, or `tick`, tries again
            self._workers -= 1
            say(logging.ERROR, "no thread can be started for a hook; raise TasksMax")

    def _soonest(self) -> float | None:
        """When the next run that nobody sees to is due."""
        free = (line.values() for hook, line in self._owed.items() if hook not in self._busy)
        return min((errand.at for errands in free for errand in errands), default=None)

    def _take(self) -> tuple[Hook, list[_Errand]] | None:
        """What is to be run now; a signal is sent once, whoever owes it."""
        now = self._clock.now().boot
        for hook, line in self._owed.items():
            if hook in self._busy:
                continue
            due = next((key for key, errand in line.items() if errand.at <= now), None)
            if due is not None:
                self._busy[hook] = None
                return hook, [line.pop(key) for key in (tuple(line) if hook.signal else (due,))]
        return None

    def _put_back(self, hook: Hook, errands: Sequence[_Errand]) -> None:
        """What failed is owed again, later; unless it is owed anew."""
        line = self._owed.setdefault(hook, {})
        for errand in errands:
            key = (errand.target.full_name, errand.event)
            if key in line:
                self._finish(errand.target.full_name)
            else:
                line[key] = errand

    def _finish(self, name: str) -> None:
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]

    def _end(self, hook: Hook, errand: _Errand, now: float, fault: str | None) -> None:
        name = errand.target.full_name
        self._ended[name] = now
        faults = self._faults.setdefault(name, {})
        if fault is None:
            faults.pop((hook, errand.event), None)
        else:
            faults[hook, errand.event] = f"hook {hook}: {fault}"
        # One that is in the config no more fails no more.
        known = {
            *((one, "change") for one in errand.target.on_change),
            *((one, "failure") for one in errand.target.on_failure),
        }
        left = {key: text for key, text in faults.items() if key in known}
        if left:
            self._faults[name] = left
        else:
            del self._faults[name]

    # -- inside: a worker ----------------------------------------------------------------------

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            hook, errands = taken
            fault = self._run(hook, errands[0])
            try:
                self._book(hook, errands, fault)
            except Exception as error:  # noqa: BLE001 - a worker that ended here would be counted for ever
                say(logging.ERROR, f"hook {hook}: its end was not booked: {_bug(error)}")

    def _next(self) -> tuple[Hook, list[_Errand]] | None:
        """What is to be run, once it is due; None where nothing is, and the worker ends."""
        with self._moved:
            while not self._stopped:
                if (taken := self._take()) is not None:
                    self._staff()
                    return taken
                soonest = self._soonest()
                if soonest is None:
                    break
                self._moved.wait(soonest - self._clock.now().boot)
            self._workers -= 1
            self._moved.notify_all()
            return None

    def _run(self, hook: Hook, errand: _Errand) -> str | None:
        def started(process: Popen[bytes]) -> None:
            with self._lock:
                self._busy[hook] = process
                over = self._over
            if over:  # who stopped us waits no more, and has not seen it
                child.kill(process)

        began = self._clock.now().boot
        try:
            invoke(hook, errand.target, self._environ, started)
        except HookFailed as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - it is tried again as any other; else its hook were busy for ever
            return _bug(error)
        took = duration(self._clock.now().boot - began)
        say(logging.DEBUG, f"hook {hook}: done in {took}", name=errand.target.full_name)
        return None

    def _book(self, hook: Hook, errands: Sequence[_Errand], fault: str | None) -> None:
        now, attempt = self._clock.now().boot, min(errand.attempt for errand in errands)
        again = fault is not None and attempt <= len(self._backoff)
        with self._moved:
            del self._busy[hook]
            if self._stopped and fault is not None:
                return  # it may have been killed by us: its note stays
            if again:
                pause = self._backoff[attempt - 1]
                self._put_back(hook, [_Errand(one.target, one.event, now + pause, attempt + 1) for one in errands])
            else:
                for errand in errands:
                    self._finish(errand.target.full_name)
                    self._end(hook, errand, now, fault)
                self.given_up += fault is not None
            if not self._owed[hook]:
                del self._owed[hook]
        self._counted("success" if fault is None else "failure")
        self._say(hook, errands, attempt, fault, again=again)
        for errand in errands:
            self._settle(errand.target)

    def _settle(self, target: Target) -> None:
        """Take the note away, if nothing is owed any more and no file is about to change."""
        name = target.full_name
        with self._noting:
            if name not in self._noted:
                return
            with self._lock:
                if name in self._pending or name in self._announced:
                    return
            self._notes.unnote(target)
            self._noted.discard(name)

    def _say(self, hook: Hook, errands: Sequence[_Errand], attempt: int, fault: str | None, *, again: bool) -> None:
        name = errands[0].target.full_name if len(errands) == 1 else None
        if fault is None:
            if attempt > 1:
                say(logging.INFO, f"hook {hook}: done at attempt {attempt}", name=name)
        elif again:
            say(logging.WARNING, f"hook {hook}: {fault}; again in {duration(self._backoff[attempt - 1])}", name=name)
        else:
            left = "; whom it should have told may go on with the old token" if errands[0].event == "change" else ""
            say(logging.ERROR, f"hook {hook}: {fault}; given up after {attempt} attempts{left}", name=name)


def _bug(error: Exception) -> str:
    # Its text could hold what it was about.
    return f"{type(error).__name__}, which is a bug of bearerd, please report it"

"""Runs the hooks that are owed, and notes on disk for which tokens some are.

A note is written before the first file of a token changes, and removed when all of its hooks are done or given up. A
crash in between costs a second run of a hook and never a missing one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import Popen
from typing import Final, Protocol

from bearerd import child
from bearerd.clock import Clock
from bearerd.errors import HookFailed, PublishError, unexpected
from bearerd.handoff import holding
from bearerd.hooks.owed import Batch, Ended, Owed
from bearerd.hooks.run import only_name, run
from bearerd.log import say
from bearerd.model import Target
from bearerd.terms import Hook
from bearerd.threads import Pool
from bearerd.timeformat import after, duration

BACKOFF: Final = (1.0, 4.0, 16.0)
"""Seconds between the four attempts: a service that is reloaded may be busy for a moment."""

# Hooks are other people's programs, and share the CPU with the machine's services.
_AT_ONCE: Final = 8
STARTS_WITHIN: Final = 0.5
"""Seconds that a stop waits for a hook that is being started. A fork and an exec take milliseconds."""


class Notes(Protocol):
    """Keeps on disk for which tokens hooks are owed."""

    def note(self, target: Target) -> None:
        """Write a token's note; raises PublishError."""
        ...

    def noted(self, target: Target) -> bool:
        """Whether a token has a note."""
        ...

    def unnote(self, target: Target) -> None:
        """Remove a token's note."""
        ...


class Hooks:
    """The hooks of all targets. Every method may be called from any thread.

    `_noting` is held while notes are written and removed. It is taken before `_lock`, which is never held during I/O.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        notes: Notes,
        clock: Clock,
        counted: Callable[[str], None] = lambda _: None,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        """`counted` is called with `success` or `failure` after each run."""
        self._environ = environ
        self._notes = notes
        self._clock = clock
        self._counted = counted
        self._noting = threading.Lock()
        self._noted: set[str] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._owed = Owed(backoff)
        self._announced: set[str] = set()
        """Tokens whose files are about to change: their notes stay."""
        self._processes: dict[Hook, Popen[bytes]] = {}
        self._starting: set[Hook] = set()
        """Hooks whose process may exist, but is not in `_processes` yet."""
        self._pool = Pool("hook", _AT_ONCE)
        self._workers = 0
        """Jobs of the pool that run hooks or wait for one to be due, also those that have no thread yet."""
        self._stopped = False
        self._over = False
        self._left_to_the_daemon = False

    @property
    def given_up(self) -> int:
        """The number of tokens for which a hook was given up."""
        return self._owed.given_up

    def leave_to_the_daemon(self) -> None:
        """Run nothing from now on. What is owed stays noted, and the daemon runs it when it starts."""
        self._left_to_the_daemon = True

    def announce(self, target: Target) -> None:
        """Call it before the target's files change."""
        name = target.full_name
        if not target.on_change:
            return
        with holding(self._noting):
            with self._lock:
                again = name in self._announced
                self._announced.add(name)
            if name in self._noted:
                return
            try:
                self._notes.note(target)
            except PublishError as error:
                if not again:  # the files are tried every few seconds
                    say(
                        logging.WARNING,
                        f"hooks: {error}; if bearerd crashes now, the hooks of this token will not run",
                        name=name,
                    )
            else:
                self._noted.add(name)

    def owed(self, target: Target) -> bool:
        """Whether an earlier process changed the target's files and ended before their hooks had."""
        if not target.on_change or not self._notes.noted(target):
            return False
        with holding(self._noting):
            self._noted.add(target.full_name)
            with self._lock:  # the note stays until `changed`, even if other hooks of the target end
                self._announced.add(target.full_name)
        return True

    def changed(self, target: Target, *, first: bool) -> None:
        """All files of the target are in place; `first`: it had no token before."""
        hooks = [hook for hook in target.on_change if not (first and hook.skip_first)]
        if hooks and self._left_to_the_daemon:
            return  # its note stays
        with self._lock:
            self._announced.discard(target.full_name)
            self._owed.add(target, "change", hooks, self._now())
            self._wake()
        self._clear(target)

    def failed(self, target: Target) -> None:
        """The target's token stopped being renewable."""
        if self._left_to_the_daemon:
            return
        with self._lock:
            self._owed.add(target, "failure", target.on_failure, self._now())
            self._wake()

    def tick(self) -> None:
        """Call it every few seconds: starts a thread if none could be started when it was needed."""
        if not self._pool.tick():
            say(logging.ERROR, "no thread can be started for a hook; raise TasksMax")
        with self._lock:
            if not self._workers:
                self._wake()

    def pending(self, name: str) -> int:
        """How many runs are owed for a target, or in progress."""
        with self._lock:
            return self._owed.pending(name)

    def undone(self, name: str) -> bool:
        """Whether hooks of the target are owed, or were given up."""
        with self._lock:
            return self._owed.undone(name)

    def last(self, target: Target) -> tuple[float | None, str | None]:
        """When (boot clock) the target's last run ended, and the faults of its hooks that were given up."""
        with self._lock:
            return self._owed.last(target)

    def forget(self, name: str) -> None:
        """The target and its note were removed: nothing is owed for it."""
        with holding(self._noting), self._lock:
            self._noted.discard(name)
            self._announced.discard(name)
            self._owed.forget(name)
            self._changed.notify_all()

    def wait(self, within: float) -> bool:
        """Wait until no run is owed or in progress; whether that took at most this many seconds."""
        with self._changed:
            return self._changed.wait_for(self._owed.settled, within)

    def stop(self, within: float) -> None:
        """Start no more runs, and kill those in progress after this many seconds.

        The next start runs the hooks of tokens that still have a note.
        """
        with self._changed:
            self._stopped = True
            self._workers -= self._pool.close()
            self._changed.notify_all()
            # A worker may still have a note to remove.
            self._changed.wait_for(lambda: not self._workers, within)
            self._over = True
            # One that was just started is not in `_processes` yet: the end of this process would leave it running.
            self._changed.wait_for(lambda: not self._starting, STARTS_WITHIN)
            left = list(self._processes.values())
        for process in left:
            # Children of one that succeeded may continue. Those of one that failed would run beside the next attempt.
            if process.poll() != 0:
                child.kill(process)

    # -- workers -------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Make sure that a worker looks at what is owed. Call it with the lock held."""
        self._changed.notify_all()
        if self._stopped or self._owed.next_due() is None or self._workers >= _AT_ONCE:
            return
        self._workers += 1
        self._pool.submit(self._work)

    def _work(self) -> None:
        try:
            self._run_owed()
        except MemoryError:  # the next change, or `tick`, starts another worker
            with self._lock:
                self._workers -= 1
            raise

    def _run_owed(self) -> None:
        while (batch := self._next()) is not None:
            fault: str | None = "out of memory"
            try:
                fault = self._run(batch)
            except Exception as error:  # noqa: BLE001 - it is tried again like any other failure
                with suppress(MemoryError):
                    fault = unexpected(error)
            try:
                self._finish(batch, fault)
            except Exception as error:  # noqa: BLE001 - the worker must continue
                say(logging.ERROR, f"hook {batch.hook}: its end was not recorded: {unexpected(error)}")

    def _next(self) -> Batch | None:
        """Wait for the next runs to make; None if there is nothing to wait for, and the worker ends."""
        with self._changed:
            while not self._stopped:
                if (batch := self._owed.take(self._now())) is not None:
                    with suppress(MemoryError):  # this batch would be lost, and others wait for this worker
                        self._wake()  # others may be due too
                    return batch
                due = self._owed.next_due()
                if due is None:
                    break
                self._changed.wait(due - self._now())
            self._changed.notify_all()
            self._workers -= 1
            return None

    def _run(self, batch: Batch) -> str | None:
        """Run a hook to its end; returns its fault."""
        hook, targets = batch.hook, batch.targets

        with self._lock:
            if self._over:
                return "bearerd is stopping"
            self._starting.add(hook)

        def started(process: Popen[bytes]) -> None:
            with self._changed:
                self._processes[hook] = process
                self._starting.discard(hook)
                self._changed.notify_all()
                over = self._over
            if over:  # `stop` did not see it
                child.kill(process)

        began = self._now()
        try:
            run(hook, targets, self._environ, started)
        except HookFailed as error:
            return str(error)
        finally:
            with self._changed:
                self._starting.discard(hook)  # it could not be started, or was a signal
                self._changed.notify_all()
        took = duration(self._now() - began)
        say(logging.DEBUG, f"hook {hook}: done in {took}{_for(targets)}", name=only_name(targets))
        return None

    def _finish(self, batch: Batch, fault: str | None) -> None:
        try:
            with self._changed:
                self._processes.pop(batch.hook, None)
                if self._stopped and fault is not None:
                    self._owed.abandon(batch)  # `stop` may have killed it: its note stays
                    return
                now = self._now()
                try:
                    ended = self._owed.finish(batch, fault, now)
                except BaseException:
                    self._owed.run_again(batch)
                    raise
                # With the lock: `wait` ends only when the last line was logged.
                self._counted("success" if fault is None else "failure")
                _log(batch, fault, ended, now)
        finally:
            for target in batch.targets:
                self._clear(target)

    def _clear(self, target: Target) -> None:
        """Remove the target's note, unless a run is owed or its files are about to change."""
        name = target.full_name
        with holding(self._noting):
            if name not in self._noted:
                return
            with self._lock:
                if self._owed.pending(name) or name in self._announced:
                    return
            self._notes.unnote(target)
            self._noted.discard(name)

    def _now(self) -> float:
        return self._clock.now().boot


def _log(batch: Batch, fault: str | None, ended: Ended, now: float) -> None:
    hook = batch.hook
    if fault is None:
        attempt = max(run.attempt for run in batch.runs)
        if attempt > 1:
            say(logging.INFO, f"hook {hook}: done at attempt {attempt}", name=only_name(batch.targets))
        return
    if ended.again:
        again = after(min(run.due for run in ended.again) - now)
        targets = [run.target for run in ended.again]
        say(logging.WARNING, f"hook {hook}: {fault}; trying again {again}{_for(targets)}", name=only_name(targets))
    if ended.given_up:
        targets = [run.target for run in ended.given_up]
        stale = any(run.event == "change" for run in ended.given_up)
        effect = "; the programs that it notifies may still use the old token" if stale else ""
        text = f"{fault}; given up after {ended.given_up[0].attempt} attempts{_for(targets)}{effect}"
        say(logging.ERROR, f"hook {hook}: {text}", name=only_name(targets))


def _for(targets: Sequence[Target]) -> str:
    """How many tokens, if they are several: the line names none of them then."""
    count = len({target.full_name for target in targets})
    return f" for {count} tokens" if count > 1 else ""
